//! CDS Hooks 2.0 (<https://cds-hooks.hl7.org/2.0/>): models of FHIR records as services that an EHR calls where it opens a chart
//! (`patient-view`) or orders are written (`order-select`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synovia_prediction::{Answer, Exported};
use synovia_records::Format;
use utoipa::ToSchema;

use super::Served;
use super::clinical::{Outcome, Prediction, Who, answer, exported, percent};
use super::fhir::uuid;
use super::multipart::{Kind, Part, Upload};
use crate::app::App;
use crate::body::{self, Held};
use crate::client::Caller;
use crate::error::Refusal;
use crate::model::Model;

/// What comes behind a model's name for the second hook.
const ORDERS: &str = "-order-select";
const HOOKS: [(&str, &str); 2] = [("patient-view", ""), ("order-select", ORDERS)];
/// Bytes of a call: charts are text, and what is made of it is many times larger.
const MAX_BYTES: usize = 16 << 20;
/// Cards of one feedback.
const MAX_FEEDBACK: usize = 1000;
/// Characters of a card's summary.
const MAX_SUMMARY: usize = 139;

/// What an EHR is asked to send along.
const PREFETCH: [(&str, &str); 6] = [
    ("patient", "Patient/{{context.patientId}}"),
    ("conditions", "Condition?patient={{context.patientId}}"),
    ("observations", "Observation?patient={{context.patientId}}"),
    ("medications", "MedicationRequest?patient={{context.patientId}}"),
    ("procedures", "Procedure?patient={{context.patientId}}"),
    ("encounters", "Encounter?patient={{context.patientId}}"),
];

/// The services that there are.
#[derive(Serialize, ToSchema)]
pub(super) struct Services {
    services: Vec<Service>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
struct Service {
    hook: &'static str,
    title: String,
    description: String,
    id: String,
    /// FHIR queries, by key.
    prefetch: BTreeMap<&'static str, &'static str>,
}

/// A call of a service.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    hook: String,
    /// Of this call.
    hook_instance: String,
    context: Context,
    /// What the queries found, by key: a resource, a Bundle of them, or null.
    #[serde(default)]
    prefetch: BTreeMap<String, Option<Value>>,
}

/// Where the user is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Context {
    patient_id: String,
}

/// Cards.
#[derive(Serialize, ToSchema)]
pub(super) struct Cards {
    cards: Vec<Card>,
}

/// What is said of a task.
#[derive(Serialize, ToSchema)]
struct Card {
    uuid: String,
    summary: String,
    /// GitHub-flavoured Markdown.
    detail: String,
    /// `info`, or `warning` where a condition of two classes can't be excluded and its absence can.
    indicator: &'static str,
    source: Source,
}

/// The model.
#[derive(Serialize, ToSchema)]
struct Source {
    label: String,
}

/// What became of cards.
#[derive(Deserialize, ToSchema)]
pub(super) struct Feedback {
    feedback: Vec<OfCard>,
}

/// What became of a card.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OfCard {
    /// Its UUID.
    card: String,
    /// `accepted` or `overridden`.
    outcome: String,
}

/// Whether an EHR can send what the model looks at.
fn is_service(model: &Model) -> bool {
    let is_one = |exported: &Exported| !exported.tasks.is_empty() && exported.records.as_ref().is_some_and(|f| f.format == Format::Fhir);
    exported(model).is_ok_and(is_one)
}

/// The services of all models whose records are FHIR.
pub(super) async fn services(State(app): State<Arc<App>>) -> Json<Services> {
    let mut newest: BTreeMap<String, Arc<Model>> = BTreeMap::new();
    // Versions come in their order.
    newest.extend(app.repository.loaded().into_iter().filter(|model| is_service(model)).map(|model| (model.name.clone(), model)));
    let of = |model: &Arc<Model>| {
        let tasks = exported(model).map(|exported| exported.tasks.iter().map(|task| task.name.clone()).collect::<Vec<_>>());
        let tasks = tasks.unwrap_or_default().join(", ");
        HOOKS.map(|(hook, end)| Service {
            hook,
            title: model.name.clone(),
            description: format!("Probabilities of {tasks} by the model {}, of the chart as it is", model.name),
            id: format!("{}{end}", model.name),
            prefetch: PREFETCH.into_iter().collect(),
        })
    };
    Json(Services { services: newest.values().flat_map(of).collect() })
}

/// The model and the hook of a service.
fn service(app: &App, id: &str) -> Result<(Arc<Model>, &'static str), Refusal> {
    // A model may be named like another one's second service.
    let found = app.model(id, None).map(|model| (model, HOOKS[0].0));
    let found = found.or_else(|error| match id.strip_suffix(ORDERS) {
        Some(name) => app.model(name, None).map(|model| (model, HOOKS[1].0)),
        None => Err(error),
    });
    let (model, hook) = found?;
    if is_service(&model) {
        Ok((model, hook))
    } else {
        Err(Refusal::NotFound("this model is no service: it looks at no FHIR, or tells no classes apart".to_owned()))
    }
}

/// Whether a resource is of this patient, as far as it says whose it is.
fn is_of(resource: &Value, patient: &str) -> bool {
    if resource["resourceType"] == "Patient" {
        return resource["id"] == patient;
    }
    let references = ["subject", "patient"].map(|key| resource[key]["reference"].as_str());
    references.into_iter().flatten().all(|reference| {
        let reference = reference.split("/_history").next().unwrap_or_default();
        reference.rsplit('/').next() == Some(patient)
    })
}

/// Resources that an EHR sent along of a patient, as one Bundle. What is known of studies stays out: a model that was trained at
/// studies is asked of the chart as it is, and not as it was when an image was taken.
fn collected(prefetch: BTreeMap<String, Option<Value>>, patient: &str) -> Result<Value, Refusal> {
    let of_patient = prefetch.get("patient").and_then(Option::as_ref).filter(|of| of["resourceType"] == "Patient");
    let Some(of_patient) = of_patient else {
        return Err(Refusal::Precondition("`prefetch` has no `patient`; the queries are in the answer of /cds-services"));
    };
    if of_patient["id"] != patient {
        return Err(Refusal::Precondition("`prefetch.patient` is not the patient of `context.patientId`"));
    }
    let mut entries = Vec::new();
    for resource in prefetch.into_values().flatten() {
        match resource {
            Value::Object(mut bundle) if bundle.get("resourceType").is_some_and(|kind| kind == "Bundle") => {
                if let Some(Value::Array(mut of_bundle)) = bundle.remove("entry") {
                    let resources = of_bundle.iter_mut().filter_map(|entry| entry.get_mut("resource").map(Value::take));
                    // A search may tell how it went as one of its results.
                    entries.extend(resources.filter(|resource| resource["resourceType"] != "OperationOutcome"));
                }
            }
            resource => entries.push(resource),
        }
    }
    entries.retain(|resource| resource["resourceType"] != "ImagingStudy");
    if !entries.iter().all(|resource| is_of(resource, patient)) {
        return Err(Refusal::bad("`prefetch` has a resource of another patient than `context.patientId`"));
    }
    let entries: Vec<Value> = entries.into_iter().map(|resource| json!({ "resource": resource })).collect();
    Ok(json!({"resourceType": "Bundle", "type": "collection", "entry": entries}))
}

fn card(who: &Who, prediction: &Prediction, task: &str, instance: &str, intended_use: &str) -> Card {
    let answer: &Answer = &prediction.answer;
    let by_class = &answer.probabilities[task];
    let set = answer.prediction_sets.get(task);
    let (class, p) = by_class.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(("", 0.0), |(class, p)| (class.as_str(), *p));
    let is_binary = by_class.len() == 1;
    let named = if class == task { class.to_owned() } else { format!("{task}: {class}") };
    let summary: String = format!("{named} {} by the model {}", percent(p), who.name).chars().take(MAX_SUMMARY).collect();
    let is_warned = is_binary && set.is_some_and(|set| set.classes.len() == 1 && set.classes[0] == class);
    let mut lines: Vec<String> = by_class.iter().map(|(class, p)| format!("- {class}: {}", percent(*p))).collect();
    if let Some(set) = set {
        lines.push(format!("\nNot excluded at a coverage of {}: {}.", percent(set.coverage as f32), set.classes.join(", ")));
    }
    for outside in prediction.out_of_range.iter().flatten() {
        lines.push(format!(
            "\n{} ({} {}) is beyond most of the records that the model was trained on.",
            outside.feature, outside.value, outside.unit
        ));
    }
    if answer.novelty.is_some_and(|novelty| novelty.is_novel) {
        lines.push("\nTo the model this looks unlike what it was trained on.".to_owned());
    }
    let used = if answer.present.image { "the chart and an image" } else { "the chart, without an image" };
    lines.push(format!("\nModel {} version {} on {used}. {intended_use}", who.name, who.version));
    Card {
        uuid: uuid(&[instance, &who.sha256, task]),
        summary,
        detail: lines.join("\n"),
        indicator: if is_warned { "warning" } else { "info" },
        source: Source { label: format!("{} version {}", who.name, who.version) },
    }
}

/// What a body says, and `read` of it, off the threads that read requests and no more at a time than are prepared.
async fn read<T: DeserializeOwned, U: Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    read: impl FnOnce(T) -> Result<U, Refusal> + Send + 'static,
) -> Result<(U, Held), Refusal> {
    let (bytes, held) = body::read_up_to(app, headers, body, MAX_BYTES).await?;
    let turn = app.preparing.clone().acquire_owned().await.map_err(|_| Refusal::Late)?;
    let work = move || {
        let _turn = turn;
        let value = serde_json::from_slice(&bytes).map_err(|_| Refusal::bad("the body is not the JSON that CDS Hooks 2.0 has here"))?;
        read(value)
    };
    Ok((body::off_thread(work).await?, held))
}

/// Cards for the chart that an EHR sends along.
pub(super) async fn call(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let deadline = app.deadline();
    let (model, hook) = service(&app, &id)?;
    let _place = app.uploads.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let collect = move |call: Call| {
        if call.hook != hook {
            return Err(Refusal::bad(format!("this service is for the hook {hook}")));
        }
        let bytes = collected(call.prefetch, &call.context.patient_id)?.to_string().into_bytes();
        Ok((call.hook_instance, bytes))
    };
    let ((instance, bytes), held) = read(&app, &headers, body, collect).await?;
    let upload = Upload { parts: vec![Part { kind: Kind::Records, bytes }], ..Upload::default() };
    let predicted = match answer(&app, &model, &caller, upload, held, deadline).await? {
        Outcome::Predicted(predicted) => predicted,
        Outcome::Unusable(..) => return Err(Refusal::Precondition("nothing in `prefetch` is anything that the model knows of a patient")),
    };
    let who = Who::of(&model);
    let intended_use = &exported(&model)?.intended_use;
    // Of one patient they are in order of time.
    let last = predicted.predictions.last();
    let of = |prediction: &Prediction| -> Vec<Card> {
        prediction.answer.probabilities.keys().map(|task| card(&who, prediction, task, &instance, intended_use)).collect()
    };
    let mut response = Json(Cards { cards: last.map(of).unwrap_or_default() }).into_response();
    response.extensions_mut().insert(Served(model));
    Ok(response)
}

/// What became of cards, for the audit log.
pub(super) async fn feedback(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<super::v2::Nothing>, Refusal> {
    let (model, _) = service(&app, &id)?;
    let _place = app.uploads.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let check = |told: Feedback| {
        let is_uuid = |text: &str| text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let is_one = |of: &OfCard| is_uuid(&of.card) && matches!(of.outcome.as_str(), "accepted" | "overridden");
        if told.feedback.len() > MAX_FEEDBACK || !told.feedback.iter().all(is_one) {
            let what = "a feedback has the UUID of a `card`, and an `outcome` that is accepted or overridden, for at most 1000 cards";
            return Err(Refusal::bad(what));
        }
        Ok(told.feedback)
    };
    let (told, _held) = read(&app, &headers, body, check).await?;
    for OfCard { card, outcome } in told {
        app.audit(json!({"event": "feedback", "client": *caller.name, "protocol": caller.protocol, "model": model.name, "card": card, "outcome": outcome})).await?;
    }
    Ok(Json(super::v2::Nothing {}))
}
