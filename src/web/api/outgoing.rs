//! The request that a receiver gets, as the `webhooks` of the API's document: so that whoever writes a receiver finds its headers, its
//! body and what follows from each answer where everything else stands. It only documents; a test holds it to what is really sent.

use utoipa::openapi::path::Paths;

use super::schema;

/// An event, delivered to a webhook of which it is wanted.
///
/// The body is the producer's bytes, untouched; where the webhook's `body` is `netpulse` it is `{"id", "result"}`, both text: of the
/// event's `job`, of its `data`, or its own; the result of a failed job is its `error` or `error_message`. The method, more headers, cookies and credentials are those of the webhook. A delivery
/// may come more than once, always with the same `webhook-id`: drop what was seen before. `webhook-signature` is that of
/// Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of `webhook-id.webhook-timestamp.body`, one for each live secret.
#[utoipa::path(post, path = "delivery", tag = "deliveries", operation_id = "delivery", security(()),
    params(
        ("webhook-id" = String, Header, description = "the delivery; the same in every attempt", example = "dlv_3f0c8a5b7e1d4c2fa9b6"),
        ("webhook-timestamp" = i64, Header, description = "the time of this attempt in Unix seconds; refuse what is older than five minutes", example = 1767225600),
        ("webhook-signature" = Option<String>, Header, description = "one signature, or two with a space between them while a secret is changed; only where the webhook has a secret", example = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
        ("x-webhook-signature" = Option<String>, Header, description = "`sha256=` and the hex HMAC-SHA256 of the body alone, with the newest secret; only where the webhook has one", example = "sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd"),
        ("x-webhook-event" = String, Header, description = "the event's type", example = "job.failed"),
        ("x-webhook-attempt" = u32, Header, description = "1 for the first", example = 1),
        ("traceparent" = Option<String>, Header, description = "W3C trace context of the event, where it has one", example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate" = Option<String>, Header, description = "what goes with the event's trace context, up to 512 bytes", example = "vendor=00f067aa0ba902b7"),
        ("user-agent" = String, Header, description = "`Postrider/` and its version, where the webhook names none"),
    ),
    request_body(content = schema::EventInput, description = "the event as it was produced",
        example = json!({"event_type": "job.failed", "customer": 1, "job": {"id": 123, "status": "failed"}})),
    responses(
        (status = "2XX", description = "It is delivered; nothing of the answer is looked at"),
        (status = "3XX", description = "Not followed; it is attempted again"),
        (status = 400, description = "Rejected: it goes to the dead letters at once, as after 401, 403, 404, 405, 413 and 422"),
        (status = 410, description = "The receiver is gone: it goes to the dead letters, and the webhook is disabled"),
        (status = 429, description = "Nothing is sent before `Retry-After`, from 1 s to 24 h; then it is attempted again"),
        (status = 503, description = "As 429"),
        (status = "default", description = "Every other answer, and none within the webhook's `timeout_seconds`: it is attempted again, `retry_backoff` doubled each time, until `max_retries` are spent; then it goes to the dead letters"),
    ))]
#[allow(dead_code, reason = "it carries the document, and is never called")]
fn delivery() {}

/// The document's `webhooks`.
pub(super) fn webhooks() -> Paths {
    let mut webhooks = Paths::new();
    let delivery = <__path_delivery as utoipa::Path>::operation();
    webhooks.add_path_operation(
        "delivery",
        vec![utoipa::openapi::HttpMethod::Post],
        delivery,
    );
    webhooks
}
