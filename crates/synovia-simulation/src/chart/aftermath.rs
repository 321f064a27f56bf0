//! The study itself, and what came of it: labels come from here, and nothing here may become an input.

use rand::RngExt;
use synovia_cohort::Time;

use super::Page;
use super::labs::{self, CEA};
use super::resources::{Coding, DiagnosticReport, Identifier, ImagingStudy, Instance, Reference, Series};
use super::writer::{Category, Chart, ResourceType};
use crate::SimulationError;
use crate::patient::Visit;

const STAGE: Coding = Coding::loinc("21908-9", "Stage group.clinical Cancer");
const STAGES: [Coding; 4] = [
    Coding::snomed("258215001", "Stage 1"),
    Coding::snomed("258219007", "Stage 2"),
    Coding::snomed("258224005", "Stage 3"),
    Coding::snomed("258228008", "Stage 4"),
];
const FINDINGS: [(Coding, &str); 3] = [
    (Coding::snomed("60046008", "Pleural effusion"), "Pleural effusion."),
    (Coding::snomed("8186001", "Cardiomegaly"), "Enlarged cardiac silhouette."),
    (Coding::snomed("95436008", "Lung consolidation"), "Focal consolidation."),
];
const MALIGNANT: Coding = Coding::snomed("363358000", "Malignant tumor of lung");
const CHEMOTHERAPY: Coding = Coding::rxnorm("40048", "carboplatin");
/// The treatments that `response` compares.
const TREATMENTS: [Coding; 2] = [Coding::rxnorm("18631", "azithromycin"), Coding::rxnorm("8640", "prednisone")];
const TREND: Coding = Coding::snomed("418138009", "Patient condition finding");
const IMPROVED: Coding = Coding::snomed("268910001", "Patient's condition improved");
const WORSENED: Coding = Coding::snomed("271299001", "Patient's condition worsened");
const RADIOGRAPH: Coding = Coding::loinc("36643-5", "XR Chest 2 Views");
/// Probability that a stage is recorded.
const P_STAGE_RECORDED: f64 = 0.85;

/// An imaging study of `subject`.
pub(super) fn imaging_study(id: String, subject: Reference, study_uid: &str, visit: &Visit) -> ImagingStudy {
    let series = |k: usize| Series {
        uid: visit.series_uids[k].clone(),
        number: k as u32 + 1,
        modality: Coding::modality("DX"),
        number_of_instances: 1,
        body_site: Coding::snomed("51185008", "Thoracic structure"),
        instance: vec![Instance {
            uid: visit.instance_uids[k].clone(),
            sop_class: Coding { system: "urn:ietf:rfc:3986", code: "urn:oid:1.2.840.10008.5.1.4.1.1.1.1", display: "" },
            number: 1,
        }],
    };
    ImagingStudy {
        resource_type: "ImagingStudy",
        id,
        identifier: [Identifier { system: "urn:dicom:uid", value: format!("urn:oid:{study_uid}") }],
        status: "available",
        modality: [Coding::modality("DX")],
        subject,
        started: visit.time,
        number_of_series: 2,
        number_of_instances: 2,
        series: vec![series(0), series(1)],
    }
}

/// The study and its report. The report is of the time of the study (`effectiveDateTime`) but was not known before it was
/// issued, hours later: a reader who dates it by the former has the findings as an input.
pub(super) fn study(page: &mut Page, chart: &mut Chart) -> Result<(), SimulationError> {
    let (visit, id) = (page.visit, chart.next_id(ResourceType::ImagingStudy));
    let study = imaging_study(id.clone(), chart.subject(), &visit.study_uid, visit);
    chart.add(ResourceType::ImagingStudy, &study)?;
    let found = || FINDINGS.iter().zip(visit.outcomes.findings).filter(|(_, present)| *present).map(|(finding, _)| finding);
    let mut conclusion: Vec<&str> = found().map(|finding| finding.1).collect();
    if conclusion.is_empty() {
        conclusion.push("No effusion, no consolidation, heart not enlarged.");
    }
    let report = DiagnosticReport {
        resource_type: "DiagnosticReport",
        id: chart.next_id(ResourceType::DiagnosticReport),
        status: "final",
        category: [Coding { system: "http://terminology.hl7.org/CodeSystem/v2-0074", code: "RAD", display: "Radiology" }.into()],
        code: RADIOGRAPH.into(),
        subject: chart.subject(),
        effective_date_time: visit.time,
        issued: visit.time.plus_seconds(page.rng.random_range(3_600..20 * 3_600)),
        imaging_study: [Reference { reference: format!("ImagingStudy/{id}") }],
        conclusion: conclusion.join(" "),
        conclusion_code: found().map(|finding| finding.0.into()).collect(),
    };
    chart.add(ResourceType::DiagnosticReport, &report)
}

/// Outcomes up to the last contact; all draws are made whether or not they are written, so that the patient's further
/// draws do not depend on outcomes.
pub(super) fn after(page: &mut Page, chart: &mut Chart) -> Result<(), SimulationError> {
    let (visit, rng) = (page.visit, &mut page.rng);
    let outcomes = &visit.outcomes;
    let at = |days: f64| -> Time { visit.time.plus_seconds((days * 86_400.0) as i64) };
    let stage_days = rng.random_range(5.0..60.0);
    let stage_recorded = rng.random_bool(P_STAGE_RECORDED);
    let treatment_days = rng.random_range(1.0..14.0);
    let response_days = rng.random_range(60.0..120.0);
    let onset_days = rng.random_range(20.0..150.0);
    let [recording_days, chemotherapy_days, remeasured_days]: [f64; 3] =
        [rng.random_range(0.0..5.0), rng.random_range(5.0..20.0), rng.random_range(1.0..20.0)];
    let elevation = rng.random_range(4.0..20.0);
    let seen = |days: f64| days <= outcomes.follow_up_days;

    if seen(treatment_days) {
        chart.add_medication(TREATMENTS[outcomes.treatment], at(treatment_days))?;
    }
    if seen(stage_days) && stage_recorded {
        chart.add_answer(Category::Exam, STAGE, at(stage_days), STAGES[outcomes.stage])?;
    }
    if seen(response_days) {
        let improved = outcomes.potential[outcomes.treatment];
        chart.add_answer(Category::Exam, TREND, at(response_days), if improved { IMPROVED } else { WORSENED })?;
    }
    if outcomes.malignant && seen(onset_days + recording_days) {
        chart.add_condition(MALIGNANT, at(onset_days), at(onset_days + recording_days))?;
        if seen(onset_days + chemotherapy_days) {
            chart.add_medication(CHEMOTHERAPY, at(onset_days + chemotherapy_days))?;
        }
        if seen(onset_days + remeasured_days) {
            let value = labs::cea(visit.record.cea.z) * elevation;
            let quantity = CEA.quantity(value, page.patient.site);
            chart.add_quantity(Category::Laboratory, CEA.code, at(onset_days + remeasured_days), quantity)?;
        }
    }
    if outcomes.deterioration_observed() {
        let urgent = Some(Coding::priority("UR", "urgent"));
        chart.add_encounter(Coding::encounter("IMP", "inpatient encounter"), urgent, at(outcomes.deterioration_days), 96)?;
    }
    chart.add_encounter(Coding::encounter("AMB", "ambulatory"), None, at(outcomes.follow_up_days), 1)
}
