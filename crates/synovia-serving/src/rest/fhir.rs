//! Answers in FHIR R4: a Bundle with a RiskAssessment for each prediction and task, by the model as a Device.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::clinical::{Predicted, Prediction, Who, percent};

/// By which a client asks for it, and how it is told that it got it.
pub(super) const CONTENT_TYPE: &str = "application/fhir+json";

/// Whether a reference is one of FHIR's, relative, such as `Patient/123`.
pub(super) fn is_reference(text: &str) -> bool {
    let is_id = |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    text.split_once('/').is_some_and(|(kind, id)| matches!(kind, "Patient" | "Group") && is_id(id))
}

/// A UUID that follows from what it is of (RFC 9562, version 8).
pub(super) fn uuid(of: &[&str]) -> String {
    let digest = Sha256::digest(json!(of).to_string());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// The model as the device that says it.
fn device(who: &Who) -> Value {
    json!({
        "resourceType": "Device", "id": "model",
        "identifier": [{"system": "urn:ietf:rfc:6920", "value": format!("ni:///sha-256-hex;{}", who.sha256)}],
        "deviceName": [{"name": who.name, "type": "model-name"}],
        "version": [{"value": who.version}],
    })
}

/// What is said of one task. Probabilities are per cent, as the definition of `RiskAssessment.prediction.probability[x]` has it.
fn risk(who: &Who, prediction: &Prediction, task: &str, subject: Option<&str>, at: &str, intended_use: &str) -> Value {
    let answer = &prediction.answer;
    let outcome = |class: &str| if class == task { class.to_owned() } else { format!("{task}: {class}") };
    let per_cent = |p: f32| (f64::from(p) * 1e6).round() / 1e4;
    let risk = |(class, p): (&String, &f32)| json!({"outcome": {"text": outcome(class)}, "probabilityDecimal": per_cent(*p)});
    let predictions: Vec<Value> = answer.probabilities[task].iter().map(risk).collect();
    let mut notes = Vec::new();
    if let Some(set) = answer.prediction_sets.get(task) {
        notes.push(format!("Not excluded at a coverage of {}: {}", percent(set.coverage as f32), set.classes.join(", ")));
    }
    notes.push(match (answer.present.image, answer.present.record) {
        (true, true) => "Made of an image and a record.".to_owned(),
        (true, false) => "Made of an image alone.".to_owned(),
        _ => "Made of a record alone.".to_owned(),
    });
    for outside in prediction.out_of_range.iter().flatten() {
        notes.push(format!("{} is beyond the middle 98 % of the records that the model was trained on.", outside.feature));
    }
    if answer.novelty.is_some_and(|novelty| novelty.is_novel) {
        notes.push("To the model this looks unlike what it was trained on.".to_owned());
    }
    if let Some(stored) = &prediction.stored {
        notes.push(format!("Stored in the image archive as instance {}.", stored.sop_instance_uid));
    }
    notes.push(intended_use.to_owned());
    // Who it is of only the client knows: nobody's name comes out of the server.
    let subject = subject.map_or_else(|| json!({"display": "The patient of the request"}), |subject| json!({ "reference": subject }));
    json!({
        "resourceType": "RiskAssessment", "contained": [device(who)], "status": "preliminary",
        "identifier": [{"system": "urn:synovia:example", "value": format!("{}/{task}", answer.example)}],
        "code": {"text": task}, "method": {"text": format!("{} version {}", who.name, who.version)},
        "subject": subject, "occurrenceDateTime": at, "performer": {"reference": "#model"}, "prediction": predictions,
        "note": notes.iter().map(|text| json!({ "text": text })).collect::<Vec<Value>>(),
    })
}

/// What was not taken.
fn outcome(predicted: &Predicted) -> Option<Value> {
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let rejected = predicted.rejected.iter().map(|of| [text(of, "source"), text(of, "position"), text(of, "reason")].join(" "));
    let unlinked = predicted.unlinked.iter().map(|of| format!("{} studies: {}", of["studies"], text(of, "reason")));
    let issue = |text: String| json!({"severity": "warning", "code": "processing", "diagnostics": text.trim()});
    let untold = predicted.predictions.iter().flat_map(|prediction| prediction.answer.estimates.keys());
    let untold: std::collections::BTreeSet<&String> = untold.collect();
    let untold = untold.into_iter().map(|name| format!("estimates of {name} are told as JSON only, by Accept: application/json"));
    let issues: Vec<Value> = rejected.chain(unlinked).chain(untold).map(issue).collect();
    (!issues.is_empty()).then(|| json!({"resourceType": "OperationOutcome", "issue": issues}))
}

/// All predictions, and what was not taken, as a collection.
pub(super) fn bundle(predicted: &Predicted, subject: Option<&str>) -> Value {
    let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let who = &predicted.model;
    let entry = |name: &[&str], resource: Value| json!({"fullUrl": format!("urn:uuid:{}", uuid(name)), "resource": resource});
    let of = |prediction: &Prediction| {
        let one = |task: &String| {
            let resource = risk(who, prediction, task, subject, &at, &predicted.intended_use);
            entry(&[&at, &who.sha256, &prediction.answer.example, task], resource)
        };
        prediction.answer.probabilities.keys().map(one).collect::<Vec<Value>>()
    };
    let mut entries: Vec<Value> = predicted.predictions.iter().flat_map(of).collect();
    entries.extend(outcome(predicted).map(|outcome| entry(&[&at, "outcome"], outcome)));
    json!({"resourceType": "Bundle", "type": "collection", "timestamp": at, "entry": entries})
}
