//! Answers in FHIR R4: a Bundle with a RiskAssessment for each prediction and task, by the model as a Device.

use serde_json::{Value, json};
use synovia_prediction::Answer;

use super::clinical::{Prediction, Who, percent};

/// By which a client asks for it, and how it is told that it got it.
pub(super) const CONTENT_TYPE: &str = "application/fhir+json";

/// Whether a reference is one of FHIR's, relative, such as `Patient/123`.
pub(super) fn is_reference(text: &str) -> bool {
    let is_id = |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    text.split_once('/').is_some_and(|(kind, id)| matches!(kind, "Patient" | "Group") && is_id(id))
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

/// What is said of one task.
fn risk(who: &Who, answer: &Answer, task: &str, subject: Option<&str>, at: &str, notes: &[String]) -> Value {
    let outcome = |class: &str| if class == task { class.to_owned() } else { format!("{task}: {class}") };
    let prediction = |(class, p): (&String, &f32)| json!({"outcome": {"text": outcome(class)}, "probabilityDecimal": f64::from(*p)});
    let predictions: Vec<Value> = answer.probabilities[task].iter().map(prediction).collect();
    let mut notes: Vec<Value> = notes.iter().map(|text| json!({ "text": text })).collect();
    if let Some(set) = answer.prediction_sets.get(task) {
        let text = format!("Not excluded at a coverage of {}: {}", percent(set.coverage as f32), set.classes.join(", "));
        notes.insert(0, json!({ "text": text }));
    }
    // Who it is of only the client knows: nobody's name comes out of the server.
    let subject = subject.map_or_else(|| json!({"display": "The patient of the request"}), |subject| json!({ "reference": subject }));
    json!({
        "resourceType": "RiskAssessment", "contained": [device(who)], "status": "preliminary",
        "identifier": [{"system": "urn:synovia:example", "value": format!("{}/{task}", answer.example)}],
        "code": {"text": task}, "method": {"text": format!("{} version {}", who.name, who.version)},
        "subject": subject, "occurrenceDateTime": at, "performer": {"reference": "#model"}, "prediction": predictions, "note": notes,
    })
}

/// All predictions, as a collection.
pub(super) fn bundle(who: &Who, predictions: &[Prediction], subject: Option<&str>, intended_use: &str) -> Value {
    let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let of = |prediction: &Prediction| {
        let answer = &prediction.answer;
        let used = match (answer.present.image, answer.present.record) {
            (true, true) => "Made of an image and a record.",
            (true, false) => "Made of an image alone.",
            _ => "Made of a record alone.",
        };
        let mut notes = vec![used.to_owned()];
        for outside in prediction.out_of_range.iter().flatten() {
            notes.push(format!("{} is beyond the middle 98 % of the records that the model was trained on.", outside.feature));
        }
        notes.push(intended_use.to_owned());
        let risk = |task: &String| json!({ "resource": risk(who, answer, task, subject, &at, &notes) });
        answer.probabilities.keys().map(risk).collect::<Vec<Value>>()
    };
    let entries: Vec<Value> = predictions.iter().flat_map(of).collect();
    json!({"resourceType": "Bundle", "type": "collection", "timestamp": at, "entry": entries})
}
