//! The document of the API (OpenAPI 3.1) and a page of it that works without the Internet. What every route shares (the
//! bearer token, the refusals that come before a handler) is added here, so that no route can leave it out.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::{Map, Value};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem::MEDIA_TYPE;
use super::{Api, PREFIX};

/// What stands around the routes.
pub(super) fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Postrider")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Carries Kafka events to webhooks. Send `Authorization: Bearer <token>`; a token of a customer sees that customer only. Every path may be written without its last slash.",
        ));
    OpenApiBuilder::new().info(info.build()).build()
}

/// The document with what all routes share.
pub(super) fn finished(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_with(Default::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(
        "bearer",
        Vec::<String>::new(),
    )]);
    document.webhooks = Some(super::outgoing::webhooks());
    let examples = examples();
    for item in document.paths.paths.values_mut() {
        let reading = [&mut item.get];
        let writing = [
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in reading.into_iter().flatten() {
            share(operation, false);
        }
        for operation in writing.into_iter().flatten() {
            share(operation, true);
        }
        if let Some(operation) = &mut item.post {
            with_key(operation);
        }
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            exemplify(operation, &examples);
        }
    }
    document
}

fn share(operation: &mut Operation, writes: bool) {
    let mut refusals = vec![
        ("401", "There is no token, or it is not valid"),
        ("429", "Too many wrong tokens came from this address"),
        ("500", "A fault in Postrider"),
    ];
    if writes {
        refusals.push(("403", "The token's role does not allow it"));
        refusals.push(("503", "The cluster does not take it now"));
    }
    if operation.request_body.is_some() {
        refusals.push(("400", "The body is wrong"));
        refusals.push(("413", "The body is larger than 1 MiB"));
        refusals.push(("415", "The body is said not to be JSON"));
    }
    for (status, description) in refusals {
        refuse(operation, status, description);
    }
}

/// Adds a refusal, unless the route says it in its own words.
fn refuse(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| {
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        RefOr::T(
            ResponseBuilder::new()
                .description(description)
                .content(MEDIA_TYPE, content)
                .build(),
        )
    });
}

/// An example of each form that is a whole body, by its name.
fn examples() -> Map<String, Value> {
    serde_json::from_str(include_str!("examples.json")).unwrap_or_default()
}

fn exemplify(operation: &mut Operation, examples: &Map<String, Value>) {
    let asked = operation.request_body.iter_mut();
    let asked = asked.filter_map(|body| match body {
        RefOr::T(body) => Some(body.content.values_mut()),
        RefOr::Ref(_) => None,
    });
    let answers = operation.responses.responses.values_mut();
    let answers = answers.filter_map(|response| match response {
        RefOr::T(response) => Some(response.content.values_mut()),
        RefOr::Ref(_) => None,
    });
    for content in asked.flatten().chain(answers.flatten()) {
        if let RefOr::T(content) = content
            && let Some(RefOr::Ref(form)) = &content.schema
            && content.example.is_none()
        {
            let name = form.ref_location.rsplit('/').next().unwrap_or_default();
            content.example = match name.strip_prefix("Page_") {
                None => examples.get(name).cloned(),
                Some(row) => examples.get(row).map(
                    |row| serde_json::json!({"next": null, "previous": null, "results": [row]}),
                ),
            };
        }
    }
}

/// What [`super::idempotency`] does for every POST.
fn with_key(operation: &mut Operation) {
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "1 to 255 characters: the same request with the same key within a day is answered as the first was and does nothing again (by the same instance, as long as it runs; a secret in the answer becomes `***`)",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .example(Some("9f2c6d1e-4b7a".into()))
        .build();
    operation
        .parameters
        .get_or_insert_with(Vec::new)
        .push(key.into());
    refuse(operation, "400", "The request is wrong");
    let conflict = "The Idempotency-Key was used with another request, or its request is under way";
    refuse(operation, "409", conflict);
    refuse(operation, "413", "The body is larger than 1 MiB");
}

/// The document and its page: for everybody, as they hold no data.
pub(super) fn pages() -> Router<Arc<Api>> {
    let path = format!("{PREFIX}/openapi.json");
    // The page's own router reads the document from the path that is told.
    let page = SwaggerUi::new("/docs").config(Config::new([path.clone()]));
    let page: Router<Arc<Api>> = page.into();
    page.route(&format!("{path}/"), get(document))
}

async fn document(State(api): State<Arc<Api>>) -> Response {
    match api.document.get() {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response(),
        None => Redirect::temporary("/docs").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of the members of a form, and of those that it must have.
    fn members(schemas: &Value, form: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut all, mut required) = (BTreeSet::new(), BTreeSet::new());
        for part in form["allOf"].as_array().unwrap_or(&vec![form.clone()]) {
            let part = match part["$ref"].as_str() {
                Some(name) => &schemas[name.rsplit('/').next().unwrap()],
                None => part,
            };
            let names = part["properties"].as_object().into_iter().flatten();
            all.extend(names.map(|(name, _)| name.clone()));
            let names = part["required"].as_array().into_iter().flatten();
            required.extend(names.map(|name| name.as_str().unwrap().to_owned()));
        }
        (all, required)
    }

    #[test]
    fn every_body_has_an_example_and_no_example_lacks_or_invents_a_member() {
        let document = serde_json::to_value(super::super::document()).unwrap();
        let schemas = &document["components"]["schemas"];
        let mut seen = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap().values();
                for body in responses.chain([&operation["requestBody"]]) {
                    for content in body["content"].as_object().into_iter().flatten() {
                        let (example, form) = (&content.1["example"], &content.1["schema"]["$ref"]);
                        let name = form.as_str().unwrap().rsplit('/').next().unwrap();
                        let example = example.as_object();
                        let example = example.unwrap_or_else(|| panic!("{method} {path} {name}"));
                        let (all, required) = members(schemas, &schemas[name]);
                        for member in example.keys().filter(|_| !all.is_empty()) {
                            assert!(all.contains(member), "{name}/{member} is invented");
                        }
                        for member in required {
                            assert!(example.contains_key(&member), "{name}/{member} is missing");
                        }
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn every_member_of_every_form_is_described() {
        let document = serde_json::to_value(super::super::document()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut seen = 0;
        for (name, schema) in schemas {
            for (member, form) in schema["properties"].as_object().into_iter().flatten() {
                let is_form = !form["$ref"].is_null() || !form["oneOf"].is_null();
                let is_told = form["description"].is_string() || is_form;
                assert!(is_told, "{name}/{member}");
                seen += 1;
            }
        }
        assert!(seen > 150, "{seen}");
    }
}
