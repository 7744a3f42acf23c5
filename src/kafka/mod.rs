//! The only code that touches rdkafka. In: topic names and settings. Out: records with receipts, acknowledgements of what
//! was written, and the state of topics.
//!
//! Above it nobody knows of a client; below it nobody knows of webhooks.

mod books;
pub mod clock;
pub mod consumer;
mod describe;
pub mod embedded;
mod finished;
mod handover;
pub mod ledger;
mod membership;
pub mod producer;
mod reach;
pub mod receipt;
mod renewal;
pub mod rights;
pub mod settings;
pub mod start;
mod status;
pub mod table;
pub mod tail;
mod topic_id;
pub mod topics;
mod turns;
pub mod unread;

use bytes::Bytes;
use rdkafka::error::KafkaError;

pub use books::BookSummary;
pub use status::Status;

/// Our own faults with Kafka. Every variant ends the process (it is started again and reads what was not settled), except
/// where the caller says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client refused an operation for good.
    #[error("Kafka: {0}")]
    Client(#[from] KafkaError),
    /// Another member joined the group under this one's name; it has the partitions now.
    #[error(
        "another instance has joined the group of {0} with the same kafka.instance_id and taken its partitions, so this one ends; give each instance an id of its own"
    )]
    Fenced(&'static str),
    /// There can be no client with these settings.
    #[error(
        "the Kafka client refuses its settings: {0}; mend kafka.properties, kafka.consumer or kafka.producer (librdkafka's names)"
    )]
    Settings(String),
    /// The broker is there and does not let us in.
    #[error("the broker at {servers} does not let us in: {what}; {cure} ({why})")]
    Shut {
        servers: String,
        what: &'static str,
        cure: &'static str,
        /// In the client's words.
        why: String,
    },
    /// The operating system gave no thread.
    #[error("could not start a thread: {0}")]
    Thread(std::io::Error),
    /// A reader's thread panicked: a defect of ours.
    #[error("a reader's thread panicked; this is a defect, please report it with the log")]
    Panicked,
    /// A record that its topic does not take, however often it is sent.
    #[error("{0}")]
    TooLarge(String),
    /// A question to the broker had no answer in time.
    #[error("{0}")]
    NoAnswer(String),
}

fn bytes_of(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}
