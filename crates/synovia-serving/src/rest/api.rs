//! Routes together with what is said of them: the router and its OpenAPI document come from the same lines.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::MethodRouter;
use serde_json::json;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, KnownFormat, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    Required, ResponseBuilder, Schema, SecurityRequirement,
};
use utoipa::{PartialSchema, ToSchema};

use crate::app::App;
use crate::error::Refusal;

/// Name of the scheme by which a client shows its token.
const TOKEN: &str = "token";

/// What a body is, or an answer: a content type and its schema.
pub(super) type Typed = (&'static str, RefOr<Schema>);

/// JSON of a type.
pub(super) fn json_of<T: ToSchema>() -> Typed {
    ("application/json", Ref::from_schema_name(T::name()).into())
}

/// JSON, a list of a type.
pub(super) fn json_list_of<T: ToSchema>() -> Typed {
    let of_one: RefOr<Schema> = Ref::from_schema_name(T::name()).into();
    ("application/json", ArrayBuilder::new().items(of_one).into())
}

/// Bytes of no schema.
pub(super) fn bytes(content_type: &'static str) -> Typed {
    let binary = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
    (content_type, binary.into())
}

/// JSON that is described elsewhere.
pub(super) fn object(content_type: &'static str) -> Typed {
    (content_type, ObjectBuilder::new().into())
}

/// A text.
pub(super) fn text(content_type: &'static str) -> Typed {
    (content_type, ObjectBuilder::new().schema_type(Type::String).into())
}

/// A number, a missing one, or lists of them as deep as a tensor is.
pub(super) fn numbers() -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type([Type::Number, Type::Null].into_iter().collect::<utoipa::openapi::schema::SchemaType>());
    let list: RefOr<Schema> = Ref::from_schema_name(Numbers::name()).into();
    let either = OneOfBuilder::new().item(number).item(list);
    ArrayBuilder::new()
        .items(either)
        .description(Some("Row by row, flat or in lists as deep as the shape; null is a missing number"))
        .into()
}

/// The values of a tensor in JSON.
pub(super) struct Numbers;

impl PartialSchema for Numbers {
    fn schema() -> RefOr<Schema> {
        numbers()
    }
}

impl ToSchema for Numbers {}

/// A form of a part a field; a field of files may come as often as there are files.
pub(super) fn form(files: &[&str], fields: &[(&str, Type)]) -> Typed {
    let of_files = || ArrayBuilder::new().items(bytes("").1);
    let form = files.iter().fold(ObjectBuilder::new(), |form, field| form.property(*field, of_files()));
    let field = |form: ObjectBuilder, (name, of): &(&str, Type)| form.property(*name, ObjectBuilder::new().schema_type(of.clone()));
    ("multipart/form-data", fields.iter().fold(form, field).into())
}

/// The answer to all that is refused.
#[derive(serde::Serialize, ToSchema)]
pub(super) struct Error {
    /// What is wrong, where, and what to do.
    error: String,
    /// What was uploaded and could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Vec<serde_json::Value>>,
}

/// What is said of an address.
pub(super) struct Operation {
    /// In a few words.
    summary: &'static str,
    /// What it takes; none for what takes no body.
    bodies: Vec<Typed>,
    /// Whether it needs one.
    needs_body: bool,
    /// What it answers.
    answers: Vec<Typed>,
    /// What it may be refused with, besides what is the same for all, and what follows from its body and address.
    refused: Vec<Refusal>,
    /// What it answers while it is not ready, where that is no error.
    unavailable: Option<Typed>,
}

impl Operation {
    pub(super) fn new(summary: &'static str, answer: Typed) -> Self {
        Self { summary, bodies: Vec::new(), needs_body: false, answers: vec![answer], refused: Vec::new(), unavailable: None }
    }

    /// A body that it may take.
    pub(super) fn takes(mut self, body: Typed) -> Self {
        self.bodies.push(body);
        self
    }

    /// A body, of which it needs this or another one.
    pub(super) fn needs(self, body: Typed) -> Self {
        Self { needs_body: true, ..self.takes(body) }
    }

    pub(super) fn answers(mut self, answer: Typed) -> Self {
        self.answers.push(answer);
        self
    }

    /// With a refusal that it may be answered with.
    pub(super) fn refused(mut self, with: Refusal) -> Self {
        self.refused.push(with);
        self
    }

    /// A model runs for it.
    pub(super) fn runs(self) -> Self {
        self.refused(Refusal::Failed)
    }

    /// It is for admins alone.
    pub(super) fn admin(self) -> Self {
        self.refused(Refusal::Forbidden)
    }

    pub(super) fn unavailable(self, answer: Typed) -> Self {
        Self { unavailable: Some(answer), ..self }
    }

    /// What it may be refused with.
    fn refusals(&self, path: &str, method: &HttpMethod) -> Vec<Refusal> {
        let of = |what: &str| what.to_owned();
        let mut refusals = vec![Refusal::Unauthorized, Refusal::Late];
        let has_body = !self.bodies.is_empty();
        if has_body || path.contains('{') {
            refusals.push(Refusal::Bad(of("a request that can't be understood")));
        }
        if path.contains('{') {
            refusals.push(Refusal::NotFound(of("no model of that name or version")));
        }
        if has_body {
            refusals.extend([
                Refusal::TooLarge { limit: 0 },
                Refusal::Busy,
                Refusal::Media(of("another Content-Type or Content-Encoding")),
            ]);
        }
        if *method == HttpMethod::Post {
            refusals.push(Refusal::OtherSite);
        }
        refusals.extend(self.refused.iter().cloned());
        refusals
    }
}

/// The router and its document, as far as they are made.
pub(super) struct Api {
    router: Router<Arc<App>>,
    paths: Paths,
    components: ComponentsBuilder,
}

impl Api {
    pub(super) fn new() -> Self {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("Where the server was given a token")).build();
        let components = ComponentsBuilder::new().security_scheme(TOKEN, SecurityScheme::Http(token));
        Self { router: Router::new(), paths: Paths::new(), components }
    }

    /// With a type that answers or bodies name.
    pub(super) fn schema<T: ToSchema>(mut self) -> Self {
        let mut within = Vec::new();
        T::schemas(&mut within);
        self.components = within.into_iter().fold(self.components, |all, (name, schema)| all.schema(name, schema));
        self.components = self.components.schema(T::name(), T::schema());
        self
    }

    pub(super) fn get(self, path: &str, handler: MethodRouter<Arc<App>>, operation: Operation) -> Self {
        self.route(path, HttpMethod::Get, handler, operation)
    }

    pub(super) fn post(self, path: &str, handler: MethodRouter<Arc<App>>, operation: Operation) -> Self {
        self.route(path, HttpMethod::Post, handler, operation)
    }

    fn route(mut self, path: &str, method: HttpMethod, handler: MethodRouter<Arc<App>>, operation: Operation) -> Self {
        self.describe(path, method, operation);
        self.router = self.router.route(path, handler);
        self
    }

    fn describe(&mut self, path: &str, method: HttpMethod, operation: Operation) {
        let named = ["model", "version"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
        let parameter = |name: &str| {
            let text = ObjectBuilder::new().schema_type(Type::String);
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True).schema(Some(text)).build()
        };
        let content = |schema: RefOr<Schema>| ContentBuilder::new().schema(Some(schema)).build();
        let of_error = || RefOr::from(Ref::from_schema_name(Error::name()));
        let mut answered = ResponseBuilder::new().description("The answer");
        let refusals = operation.refusals(path, &method);
        let has_body = !operation.bodies.is_empty();
        for (content_type, schema) in operation.answers {
            answered = answered.content(content_type, content(schema));
        }
        let mut described = OperationBuilder::new()
            .summary(Some(operation.summary))
            .parameters(Some(named.map(parameter)))
            .security(SecurityRequirement::new::<_, [&str; 0], _>(TOKEN, []))
            .security(SecurityRequirement::default())
            .response("200", answered);
        for refusal in refusals {
            let status = refusal.status();
            let said = match &refusal {
                Refusal::TooLarge { .. } => "the body is longer than the server takes".to_owned(),
                refusal => refusal.to_string(),
            };
            let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
            let schema = match &operation.unavailable {
                Some((_, schema)) if is_unavailable => OneOfBuilder::new().item(schema.clone()).item(of_error()).into(),
                _ => of_error(),
            };
            let mut response = ResponseBuilder::new().description(said).content("application/json", content(schema));
            if status == StatusCode::TOO_MANY_REQUESTS || is_unavailable {
                let seconds = ObjectBuilder::new().schema_type(Type::Integer);
                let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until it is worth another try"));
                response = response.header("Retry-After", header.build());
            }
            described = described.response(status.as_str(), response);
        }
        if has_body {
            let mut body = RequestBodyBuilder::new().required(Some(if operation.needs_body { Required::True } else { Required::False }));
            for (content_type, schema) in operation.bodies {
                body = body.content(content_type, content(schema));
            }
            described = described.request_body(Some(body.build()));
        }
        self.paths.add_path_operation(path, vec![method], described);
    }

    /// The router, with the document among its routes at `path`.
    pub(super) fn finish(self, path: &'static str) -> Router<Arc<App>> {
        let mut this = self.schema::<Error>().schema::<Numbers>();
        this.describe(path, HttpMethod::Get, Operation::new("This document", object("application/json")));
        let info = InfoBuilder::new()
            .title("synovia")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some("Exported models by the Open Inference Protocol v2, and for images and records as they are"))
            .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
        let document: OpenApi =
            OpenApiBuilder::new().info(info.build()).paths(this.paths).components(Some(this.components.build())).build();
        let document = Arc::new(json!(document));
        let answer = move || async move { axum::Json(document.as_ref().clone()) };
        this.router.route(path, axum::routing::get(answer))
    }
}
