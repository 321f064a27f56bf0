//! Why a model says what it says of an example: it is asked again with parts taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use synovia_cohort::Task;
use synovia_explanation::{Explanation, ImageShape, Plan, Variant, overlay, picture};
use synovia_prediction::{Exported, Prepared};
use utoipa::ToSchema;

use super::clinical::{exported, row, rows};
use crate::app::App;
use crate::body;
use crate::client::Caller;
use crate::error::Refusal;
use crate::model::Model;

/// Inputs that are asked about at a time.
const AT_A_TIME: usize = 8;

/// What drove a prediction.
#[derive(Serialize, ToSchema)]
pub(super) struct Explained {
    /// By task; of more than two classes it is of the most probable one.
    tasks: BTreeMap<String, Explanation>,
    /// The image as the model sees it, a PNG in base64; null without one.
    image_png: Option<String>,
    /// The same with the places that raise the probability in red and those that lower it in blue, by task.
    overlay_png: BTreeMap<String, String>,
}

/// The outputs of each task for an example.
fn of_tasks(model: &Model, exported: &Exported, outputs: &[crate::batch::Output], k: usize) -> Vec<Vec<f32>> {
    let all = row(model, outputs, k);
    let of = |task: &Task| all.iter().find(|(name, ..)| *name == task.name).map(|(_, _, values)| values.clone()).unwrap_or_default();
    exported.tasks.iter().map(of).collect()
}

/// Explains one example.
pub(super) async fn explain(
    app: &Arc<App>,
    model: &Arc<Model>,
    caller: &Caller,
    example: &Prepared,
    deadline: Instant,
) -> Result<Explained, Refusal> {
    let exported = exported(model)?;
    let shape = exported.preparation.as_ref().map(|p| ImageShape { channels: p.channels, size: p.size });
    let plan = Arc::new(Plan::new(Variant { image: example.image.clone(), record: example.record.clone() }, shape));
    // One asks as often as many others: more than a few at a time would leave them no place.
    let _turn = app.explaining.acquire().await.map_err(|_| Refusal::Late)?;
    let mut answers: Vec<Vec<Vec<f32>>> = Vec::new();
    for first in (0..plan.n_variants()).step_by(AT_A_TIME) {
        let few = first..(first + AT_A_TIME).min(plan.n_variants());
        let (of, plan, id, n) = (Arc::clone(model), Arc::clone(&plan), example.id.clone(), few.len());
        let make = move || {
            let of_variant = |Variant { image, record }| Prepared { id: id.clone(), image, record };
            rows(&of, self::exported(&of)?, &few.map(|k| of_variant(plan.variant(k))).collect::<Vec<Prepared>>())
        };
        let outputs = app.infer(model, caller, "explanation", body::off_thread(make).await?, deadline, None).await?;
        answers.extend((0..n).map(|k| of_tasks(model, exported, &outputs, k)));
    }
    let (of, image) = (Arc::clone(model), example.image.clone());
    body::off_thread(move || {
        let exported = self::exported(&of)?;
        let feature = |k: usize| match exported.features.as_ref().and_then(|plan| plan.features.get(k)) {
            Some(feature) => (feature.spec.name.clone(), feature.spec.unit.clone()),
            None => (String::new(), String::new()),
        };
        let mut tasks = BTreeMap::new();
        for (place, task) in exported.tasks.iter().enumerate() {
            let whole = &answers[0][place];
            let Some(class) = (0..whole.len()).max_by(|&a, &b| whole[a].total_cmp(&whole[b])) else { continue };
            let Some(name) = task.classes.get(class) else { continue };
            let probabilities: Vec<f64> = answers.iter().map(|tasks| f64::from(tasks[place][class])).collect();
            tasks.insert(task.name.clone(), plan.explain(name, &probabilities, feature));
        }
        let (mut image_png, mut overlay_png) = (None, BTreeMap::new());
        if let Some((image, shape)) = image.as_deref().zip(shape) {
            image_png = Some(STANDARD.encode(picture(image, shape)));
            let drawn = tasks.iter().filter_map(|(task, explanation): (&String, &Explanation)| {
                Some((task.clone(), STANDARD.encode(overlay(image, shape, explanation.image.as_ref()?))))
            });
            overlay_png.extend(drawn);
        }
        Ok(Explained { tasks, image_png, overlay_png })
    })
    .await
}
