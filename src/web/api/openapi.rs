//! The document of the API (OpenAPI 3.1) and a page of it that works without the Internet. What every route shares (the
//! bearer token, the refusals that come before a handler) is added here, so that no route can leave it out.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::openapi::path::Operation;
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
