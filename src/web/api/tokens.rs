//! Tokens over HTTP: made, listed, revoked. The text of a token is shown once and kept nowhere; an administrator of a customer makes
//! and sees tokens of that customer only (promise 7).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json as object_of};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Admin, Caller};
use super::body::{Id, Json, Query, object, refuse_unknown};
use super::paging::{self, Page};
use super::problem::Problem;
use super::{Api, audit, json, schema};
use crate::subscription::Customer;
use crate::token::{Role, Token, TokenHash, generate};

/// Tokens that the API keeps, of all customers.
const MOST_TOKENS: usize = 10_000;

/// A token as it is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenView {
    /// What it is revoked by.
    #[schema(example = "tok_01931f6c2b7e7c3c9d5a4f1e8b6a2c10")]
    id: String,
    /// For people.
    name: String,
    /// `viewer operator admin`.
    role: String,
    /// The one customer that it sees; null sees all.
    customer: Option<String>,
    /// When it was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// It is refused from then on; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The token itself, in the answer to its making only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

fn view(token: &Token, text: Option<String>) -> TokenView {
    TokenView {
        id: token.id.clone(),
        name: token.name.clone(),
        role: token.role.to_string(),
        customer: token.customer.as_ref().map(ToString::to_string),
        created_at: token.created_at,
        expires_at: token.expires_at,
        token: text,
    }
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
}

fn sees(caller: &Caller, token: &Token) -> bool {
    caller.customer.is_none() || token.customer == caller.customer
}

/// The tokens that were made by the API, oldest first. Those of the configuration are not among them.
#[utoipa::path(get, path = "/tokens/", tag = "tokens", operation_id = "list_tokens",
    params(
        ("cursor" = Option<String>, Query, description = "`next` or `previous` of a page"),
        ("page_size" = Option<u32>, Query, minimum = 1, maximum = 200, description = "rows of a page; 50"),
    ),
    responses(
        (status = 200, description = "A page", body = Page<TokenView>),
        (status = 400, description = "A parameter or the cursor is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token's role does not allow it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn list_tokens(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&["cursor", "page_size"])?;
    let size = paging::size(&query)?;
    let scope = format!("tokens\n{}", caller.scope());
    let from = api.cursors.read(&scope, query.get("cursor"))?;
    let tokens = api.behind.tokens();
    let mut rows: Vec<(String, TokenView)> = tokens
        .iter()
        .filter(|token| sees(&caller, token))
        .map(|token| (token.id.clone(), view(token, None)))
        .collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    let page = paging::cut(rows, &from, size, |from| api.cursors.write(&scope, from));
    Ok(json(StatusCode::OK, &page))
}

/// Makes a token and shows it this once.
#[utoipa::path(post, path = "/tokens/", tag = "tokens", operation_id = "create_token",
    request_body = schema::TokenInput,
    responses(
        (status = 201, description = "The token, shown this once", body = TokenView),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There are as many tokens as there may be", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn create_token(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Json(body): Json,
) -> Result<Response, Problem> {
    let members = object(body)?;
    refuse_unknown(&members, &["name", "role", "customer", "expires_at"])?;
    let now = Timestamp::now();
    let text = generate()
        .map_err(|fault| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()))?;
    let token = Token {
        id: format!("tok_{}", uuid::Uuid::now_v7().simple()),
        name: name(&members)?,
        sha256: TokenHash::of(&text),
        role: role(&members)?,
        customer: customer(&caller, &members)?,
        created_at: Some(now),
        expires_at: expires_at(&members, now)?,
    };
    api.blocking(move |api| {
        if api.behind.tokens().len() >= MOST_TOKENS {
            let detail =
                format!("there are {MOST_TOKENS} tokens, as many as there may be; revoke some");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        api.behind.put_token(&token.id, Some(&token))?;
        audit::note(
            api,
            &caller,
            "token.create",
            &token.id,
            Value::Null,
            audited(&token),
        );
        Ok(json(StatusCode::CREATED, &view(&token, Some(text))))
    })
    .await
}

/// Revokes a token: it is refused from now on, here at once and by other instances within a second.
#[utoipa::path(delete, path = "/tokens/{id}/", tag = "tokens", operation_id = "revoke_token",
    params(("id" = String, Path, description = "the token's id")),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke_token(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Id(id): Id,
) -> Result<Response, Problem> {
    api.blocking(move |api| {
        let tokens = api.behind.tokens();
        let token = tokens
            .iter()
            .find(|token| token.id == id && sees(&caller, token));
        let token = token.ok_or_else(|| Problem::no_such("token", &id))?;
        api.behind.put_token(&token.id, None)?;
        audit::note(
            api,
            &caller,
            "token.revoke",
            &token.id,
            audited(token),
            Value::Null,
        );
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

fn audited(token: &Token) -> Value {
    object_of!({
        "name": token.name,
        "role": token.role,
        "customer": token.customer,
        "expires_at": token.expires_at,
    })
}

fn name(members: &Map<String, Value>) -> Result<String, Problem> {
    let name = members.get("name").and_then(Value::as_str).map(str::trim);
    name.filter(|name| {
        (1..=100).contains(&name.chars().count()) && !name.contains(char::is_control)
    })
    .map(str::to_owned)
    .ok_or_else(|| {
        Problem::at(
            "/name",
            "`name` must be text of 1 to 100 characters, by which people know the token",
        )
    })
}

fn role(members: &Map<String, Value>) -> Result<Role, Problem> {
    let role = members
        .get("role")
        .and_then(Value::as_str)
        .and_then(Role::from_word);
    role.ok_or_else(|| Problem::at("/role", "`role` must be viewer, operator or admin"))
}

fn customer(caller: &Caller, members: &Map<String, Value>) -> Result<Option<Customer>, Problem> {
    let given = match members.get("customer") {
        None | Some(Value::Null) => None,
        Some(value) => Some(Customer::from_json(value).ok_or_else(|| {
            Problem::at("/customer", "`customer` must be a number or text; leave it out for a token that sees all customers")
        })?),
    };
    match (&caller.customer, given) {
        (Some(own), Some(other)) if *own != other => {
            let detail = format!(
                "your token is of customer {own} and makes tokens of that customer only; leave `customer` out"
            );
            Err(Problem::at("/customer", detail))
        }
        (Some(own), _) => Ok(Some(own.clone())),
        (None, given) => Ok(given),
    }
}

fn expires_at(members: &Map<String, Value>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let wrong = || {
        Problem::at(
            "/expires_at",
            "`expires_at` must be a time to come, such as 2030-01-01T00:00:00Z, or null",
        )
    };
    match members.get("expires_at") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let end: Timestamp = text.parse().map_err(|_| wrong())?;
            if end > now {
                Ok(Some(end))
            } else {
                Err(wrong())
            }
        }
        Some(_) => Err(wrong()),
    }
}
