//! Which examples train, validate and are tested on.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use synovia_cohort::{Candidate, Division, ExampleRow, FlowCounts, PatientId, Split, is_labelled};

use super::{Builder, Draft, Place};

impl Builder<'_> {
    /// Gives each example its split; those that have none are taken out and counted.
    pub(super) fn split(&mut self, drafts: &mut Vec<Draft>, place: &Place) -> anyhow::Result<()> {
        let mut candidates: BTreeMap<&PatientId, Candidate> = BTreeMap::new();
        for draft in drafts.iter() {
            let candidate = candidates.entry(&draft.patient).or_insert_with(|| Candidate {
                patient: draft.patient.clone(),
                group: draft.group.as_deref().map(str::to_owned),
                site: draft.site.as_deref().map(str::to_owned),
                label: None,
                first: draft.row.prediction_time,
            });
            // Strata are of the first task's labels, or of what makes two of an endpoint: the treatment, the event.
            let label = draft.row.labels.first().copied().unwrap_or_else(|| draft.row.endpoints.first()?.map(|[_, second]| second));
            candidate.label = label.into_iter().chain(candidate.label).reduce(f32::max);
            candidate.first = candidate.first.min(draft.row.prediction_time);
        }
        let candidates: Vec<Candidate> = candidates.into_values().collect();
        let (cohort, seed) = (&self.work.pipeline.cohort, self.work.pipeline.seed);
        let division = cohort.split.division(cohort.folds, place.fold());
        let splits = division.divide(&candidates, seed)?;
        let before = (n_patients(drafts), drafts.len() as u64);
        drafts.retain_mut(|draft| match splits[&draft.patient] {
            Some(split) => {
                draft.row.split = split;
                division.keeps(split, draft.row.prediction_time)
            }
            None => false,
        });
        let after = (n_patients(drafts), drafts.len() as u64);
        let left_over = match &division {
            Division::Time { .. } => Some(("on their patient's side in time", "later examples of patients on an earlier side")),
            Division::Sites { .. } => Some(("of a site on one side", "site unknown, or another than the group's")),
            _ => None,
        };
        if let (Some((name, reason)), Some(last)) = (left_over, self.report.flow.last()) {
            let step = FlowCounts::after(last, name, after.0, after.1, reason);
            self.report.flow.push(step);
            self.report.steps.push(("examples left over by the split".to_owned(), before.1 - after.1));
        }
        self.report.sides = [Split::Train, Split::Validation, Split::Test]
            .into_iter()
            .map(|split| {
                let of = || drafts.iter().filter(|draft| draft.row.split == split);
                let patients = of().map(|draft| &draft.patient).collect::<BTreeSet<_>>().len() as u64;
                FlowCounts { name: split.as_str().to_owned(), patients, examples: Some(of().count() as u64), left_out: None }
            })
            .collect();
        self.leave_out_labels(drafts);
        self.check_splits(&division)
    }

    /// Hides the labels of training patients that `labelled` leaves out.
    fn leave_out_labels(&mut self, drafts: &mut [Draft]) {
        let (settings, seed) = (&self.work.pipeline.tasks, self.work.pipeline.seed);
        let mut leave_out = |name: &str, share: Option<f64>, hide: &dyn Fn(&mut ExampleRow) -> bool| {
            let Some(share) = share else { return };
            let left_out = drafts.iter_mut().filter(|d| d.row.split == Split::Train && !is_labelled(&d.patient, seed, share));
            let n = left_out.filter_map(|draft| hide(&mut draft.row).then_some(())).count() as u64;
            if n > 0 {
                let reasons = self.report.unknown_labels.entry(name.to_owned()).or_default();
                *reasons.entry("left out by `labelled`".to_owned()).or_default() += n;
            }
        };
        for (k, task) in settings.classes.iter().enumerate() {
            leave_out(&task.name, task.labelled, &|row| row.labels[k].take().is_some());
        }
        for (k, endpoint) in settings.endpoints.iter().enumerate() {
            leave_out(&endpoint.name, endpoint.labelled, &|row| row.endpoints[k].take().is_some());
        }
    }

    /// That there is something to train on and, where that is not for shares to give, something to measure on.
    fn check_splits(&self, division: &Division) -> anyhow::Result<()> {
        if let Some(empty) = self.report.sides.iter().find(|side| side.patients == 0).filter(|_| !is_by_ranks(division)) {
            bail!(
                "the {} split is empty; check `split` in [cohort]: its dates, sites or shares (with few patients, stratify = true meets shares exactly)",
                empty.name
            );
        }
        Ok(())
    }
}

/// Whether shares are met by rank, to within one patient a stratum.
fn is_by_ranks(division: &Division) -> bool {
    matches!(division, Division::Shares { stratified: true, .. } | Division::Fold { stratified: true, .. })
}

fn n_patients(drafts: &[Draft]) -> u64 {
    drafts.iter().map(|draft| &draft.patient).collect::<BTreeSet<_>>().len() as u64
}
