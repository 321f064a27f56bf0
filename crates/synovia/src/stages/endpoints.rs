//! What models say of endpoints, in the endpoints' own units.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use burn::tensor::{Device, Tensor, TensorData};
use polars::prelude::{Column, DataFrame, ParquetWriter};
use synovia_cohort::{Endpoint, ExampleRow, Split};
use synovia_evaluation::{EndpointEstimate, EndpointFold, Variant};
use synovia_fusion::{EndpointHead, Estimator};
use synovia_training::Predicted;

use super::atomic::atomic_file;

/// A fold of each endpoint without any estimate yet.
pub fn empty(heads: &[EndpointHead]) -> Vec<EndpointFold> {
    let fold = |head: &EndpointHead| EndpointFold {
        quantities: head.quantities(),
        edges: match &head.estimator {
            Estimator::Survival { edges } => edges.clone(),
            _ => Vec::new(),
        },
        estimates: Vec::new(),
    };
    heads.iter().map(fold).collect()
}

/// Adds what `variant` said of each endpoint to its fold.
///
/// - n_tasks: how many logits come before
pub fn add(
    folds: &mut [EndpointFold],
    heads: &[EndpointHead],
    rows: &[&ExampleRow],
    patients: &[Arc<str>],
    predicted: &[Predicted],
    variant: Variant,
    n_tasks: usize,
) -> anyhow::Result<()> {
    for (k, (head, fold)) in heads.iter().zip(folds).enumerate() {
        let width = head.quantities().len();
        for (values, predicted) in in_units(head, predicted, n_tasks + k)?.chunks_exact(width).zip(predicted) {
            let row = rows[predicted.row];
            fold.estimates.push(EndpointEstimate {
                example: row.id.clone(),
                patient: Arc::clone(&patients[predicted.row]),
                split: row.split,
                variant,
                known: row.endpoints[k],
                values: values.to_vec(),
            });
        }
    }
    Ok(())
}

/// # Shapes
/// - result: `[predicted × n_quantities]`
fn in_units(head: &EndpointHead, predicted: &[Predicted], place: usize) -> anyhow::Result<Vec<f32>> {
    if predicted.is_empty() {
        return Ok(Vec::new());
    }
    let raw: Vec<f32> = predicted.iter().flat_map(|p| p.logits[place].iter().copied()).collect();
    let raw = Tensor::<2>::from_data(TensorData::new(raw, [predicted.len(), head.n_raw()]), &Device::flex());
    head.estimates(raw).into_data().try_to_vec().map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// Writes a row a quantity, example and variant.
pub fn write(path: &Path, endpoints: &[Endpoint], folds: &[Vec<EndpointFold>]) -> anyhow::Result<()> {
    let each = || {
        endpoints.iter().zip(folds).flat_map(|(endpoint, folds)| {
            folds.iter().flat_map(move |fold| {
                // Of several folds, what their own models had not seen.
                let told = fold.estimates.iter().filter(move |said| folds.len() == 1 || said.split == Split::Test);
                told.flat_map(move |said| fold.quantities.iter().zip(&said.values).map(move |(q, x)| (endpoint, said, q, *x)))
            })
        })
    };
    let text = |name: &str, of: &dyn Fn(&Endpoint, &EndpointEstimate, &str) -> String| {
        Column::new(name.into(), each().map(|(endpoint, said, quantity, _)| of(endpoint, said, quantity)).collect::<Vec<String>>())
    };
    let known = |name: &str, part: usize| {
        Column::new(name.into(), each().map(|(_, said, ..)| said.known.map(|known| known[part])).collect::<Vec<Option<f32>>>())
    };
    let columns = vec![
        text("example_id", &|_, said, _| said.example.as_str().to_owned()),
        text("patient_id", &|_, said, _| said.patient.to_string()),
        text("split", &|_, said, _| said.split.as_str().to_owned()),
        text("task", &|endpoint, _, _| endpoint.name.clone()),
        text("quantity", &|_, _, quantity| quantity.to_owned()),
        Column::new("value".into(), each().map(|(.., value)| value).collect::<Vec<f32>>()),
        text("variant", &|_, said, _| said.variant.as_str().to_owned()),
        known("known", 0),
        known("known_second", 1),
    ];
    let mut frame = DataFrame::new(each().count(), columns)?;
    atomic_file(path, |out| ParquetWriter::new(out).finish(&mut frame).map(|_| ()).with_context(|| path.display().to_string()))
}
