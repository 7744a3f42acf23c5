//! The tables, and the statements that write them. They are such that rows may come in any order of topics and any number of times:
//! the same records give the same view, which is what makes a rebuild and a repetition harmless.

/// Raised when the tables change; a view of another form is made anew.
pub(super) const FORM: i64 = 5;

/// The first attempt of a delivery, when nothing is to be told of it but time and status, stands in its row (`first_attempts`): most
/// deliveries have no other. The trees are cheap to write because what is new stands together in each: in those that begin with a time, and
/// in that of the ids as well (see [`crate::delivery::delivery_id`]).
///
/// `{suffix}` is SQLite's `WITHOUT ROWID`, which saves a tree per table there.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS postrider_form (form BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS postrider_positions (
    topic TEXT NOT NULL, topic_partition BIGINT NOT NULL, next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, topic_partition)
) {suffix};
CREATE TABLE IF NOT EXISTS postrider_deliveries (
    id TEXT NOT NULL UNIQUE, webhook TEXT NOT NULL, customer TEXT, event_type TEXT NOT NULL,
    source TEXT NOT NULL, created_at BIGINT NOT NULL, version BIGINT NOT NULL, updated_at BIGINT NOT NULL, status TEXT NOT NULL,
    attempts BIGINT NOT NULL, next_attempt_at BIGINT, last_status BIGINT, error_message TEXT, replay_id TEXT, reason TEXT, first_attempts TEXT
);
CREATE INDEX IF NOT EXISTS postrider_deliveries_webhook ON postrider_deliveries (webhook, created_at, customer);
CREATE INDEX IF NOT EXISTS postrider_deliveries_customer ON postrider_deliveries (customer, created_at) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS postrider_deliveries_time ON postrider_deliveries (created_at);
CREATE INDEX IF NOT EXISTS postrider_deliveries_unsuccessful ON postrider_deliveries (webhook, status, created_at, customer) WHERE status <> 'success';
CREATE TABLE IF NOT EXISTS postrider_webhooks (
    webhook TEXT NOT NULL, last_success_at BIGINT, last_failure_at BIGINT,
    PRIMARY KEY (webhook)
) {suffix};
CREATE TABLE IF NOT EXISTS postrider_attempts (
    delivery_id TEXT NOT NULL, topic_partition BIGINT NOT NULL, topic_offset BIGINT NOT NULL,
    number BIGINT NOT NULL, replay_id TEXT, started_at BIGINT NOT NULL, duration_us BIGINT NOT NULL, outcome TEXT NOT NULL, status BIGINT,
    error_message TEXT, request_headers TEXT, response_headers TEXT, response_body TEXT,
    PRIMARY KEY (delivery_id, topic_partition, topic_offset)
) {suffix};
";

/// Tables of earlier forms too.
pub(super) const DROP: &str = "
DROP TABLE IF EXISTS postrider_dead_letters;
DROP TABLE IF EXISTS postrider_attempts;
DROP TABLE IF EXISTS postrider_webhooks;
DROP TABLE IF EXISTS postrider_deliveries;
DROP TABLE IF EXISTS postrider_positions;
DROP TABLE IF EXISTS postrider_form;
";

/// The newest record decides what a delivery is now; of when it was made the oldest does; a customer once known stays known. An event that
/// was routed twice, because a process died between, has been made twice.
pub(super) const DELIVERY: &str = "INSERT INTO postrider_deliveries
(id, webhook, customer, event_type, source, created_at, version, updated_at, status, attempts, next_attempt_at, last_status,
 error_message, replay_id, reason, first_attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET
customer = COALESCE(postrider_deliveries.customer, excluded.customer),
created_at = CASE WHEN excluded.created_at < postrider_deliveries.created_at THEN excluded.created_at ELSE postrider_deliveries.created_at END,
version = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.version ELSE postrider_deliveries.version END,
updated_at = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.updated_at ELSE postrider_deliveries.updated_at END,
status = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.status ELSE postrider_deliveries.status END,
attempts = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.attempts ELSE postrider_deliveries.attempts END,
next_attempt_at = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.next_attempt_at ELSE postrider_deliveries.next_attempt_at END,
last_status = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.last_status ELSE postrider_deliveries.last_status END,
error_message = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.error_message ELSE postrider_deliveries.error_message END,
replay_id = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.replay_id ELSE postrider_deliveries.replay_id END,
reason = CASE WHEN excluded.version > postrider_deliveries.version THEN excluded.reason ELSE postrider_deliveries.reason END,
first_attempts = CASE WHEN postrider_deliveries.first_attempts IS NULL THEN excluded.first_attempts
 WHEN excluded.first_attempts IS NULL OR postrider_deliveries.first_attempts LIKE '%' || excluded.first_attempts || '%'
 THEN postrider_deliveries.first_attempts ELSE postrider_deliveries.first_attempts || excluded.first_attempts END";

pub(super) const ATTEMPT: &str = "INSERT INTO postrider_attempts
(delivery_id, topic_partition, topic_offset, number, replay_id, started_at, duration_us, outcome, status, error_message, request_headers, response_headers, response_body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING";

/// Later times win, in whatever order they come; a time that is not given changes nothing.
pub(super) const WEBHOOK: &str = "INSERT INTO postrider_webhooks (webhook, last_success_at, last_failure_at) VALUES ($1, $2, $3)
ON CONFLICT (webhook) DO UPDATE SET
last_success_at = CASE WHEN excluded.last_success_at IS NULL OR excluded.last_success_at < postrider_webhooks.last_success_at
 THEN postrider_webhooks.last_success_at ELSE excluded.last_success_at END,
last_failure_at = CASE WHEN excluded.last_failure_at IS NULL OR excluded.last_failure_at < postrider_webhooks.last_failure_at
 THEN postrider_webhooks.last_failure_at ELSE excluded.last_failure_at END";

/// Webhooks of which nothing was tried since a time (Unix milliseconds).
pub(super) const FORGET_WEBHOOKS: &str = "DELETE FROM postrider_webhooks WHERE
COALESCE(last_success_at, 0) < $1 AND COALESCE(last_failure_at, 0) < $1";

pub(super) const POSITION: &str =
    "INSERT INTO postrider_positions (topic, topic_partition, next_offset) VALUES ($1, $2, $3)
ON CONFLICT (topic, topic_partition) DO UPDATE SET next_offset = excluded.next_offset";

const OLD: &str =
    "SELECT id FROM postrider_deliveries WHERE created_at < $1 ORDER BY created_at, id LIMIT $2";

/// Retention, a small batch of it: two statements, each with the time (Unix milliseconds) and the most rows.
pub(super) fn forget() -> [String; 2] {
    [
        format!("DELETE FROM postrider_attempts WHERE delivery_id IN ({OLD})"),
        format!("DELETE FROM postrider_deliveries WHERE id IN ({OLD})"),
    ]
}
