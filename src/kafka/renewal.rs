//! Notices that a topic which is read was deleted and made anew under the running reader.
//!
//! The old client goes on at offsets that mean something else in the new topic, and may hold its leaders for stale, because
//! their epochs begin at 0 again (`rd_kafka_toppar_leader_update` in librdkafka): it would skip records, or read nothing, and
//! say nothing. Another id under the same name shows it (`topic_id`); the reader then begins again with a client of its own
//! (promise 1).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::membership::Membership;
use super::topic_id::{self, TopicId};

const ASK_EVERY: Duration = Duration::from_secs(3);
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The topics by name, and the ids that they were found to have.
pub(super) type Ids = HashMap<Arc<str>, TopicId>;

/// Asks for the ids of topics now and then, on a thread of its own: a turn never waits for the broker.
#[derive(Default)]
pub(super) struct Renewal {
    /// Of every topic that this client was ever assigned, whoever has it now: the client is what has to begin anew.
    ids: Ids,
    answer: Option<Receiver<Ids>>,
    due: Duration,
    happened: bool,
}

impl Renewal {
    /// Whether it happened.
    pub(super) fn turn(&mut self, consumer: &Arc<BaseConsumer<Membership>>, now: Duration) -> bool {
        if let Some(answer) = &self.answer {
            match answer.try_recv() {
                Ok(ids) => {
                    self.answer = None;
                    self.learn(ids);
                }
                Err(TryRecvError::Disconnected) => self.answer = None,
                Err(TryRecvError::Empty) => {}
            }
        } else if now >= self.due {
            self.due = now + ASK_EVERY;
            self.answer = ask(consumer, self.ids.keys());
        }
        self.happened
    }

    /// Takes in what topics are called now, and says whether one was made anew since it was first heard of.
    pub(super) fn learn(&mut self, ids: Ids) -> bool {
        for (topic, id) in ids {
            let known = self.ids.entry(topic).or_insert_with(|| id.clone());
            self.happened |= *known != id;
        }
        self.happened
    }

    /// The ids that were first heard.
    pub(super) const fn ids(&self) -> &Ids {
        &self.ids
    }
}

fn ask<'a>(
    consumer: &Arc<BaseConsumer<Membership>>,
    topics: impl Iterator<Item = &'a Arc<str>>,
) -> Option<Receiver<Ids>> {
    let topics: Vec<Arc<str>> = topics.cloned().collect();
    if topics.is_empty() {
        return None;
    }
    let (tell, answer) = mpsc::channel();
    let consumer = Arc::clone(consumer);
    let asking = move || {
        let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let ids = topic_id::of_topics(consumer.client(), &names, ANSWER_WAIT);
        // The reader closes its consumer when it ends, and must not find it here.
        drop(consumer);
        // Without an answer it is asked again.
        let _ = tell.send(ids.unwrap_or_default());
    };
    let spawned = std::thread::Builder::new()
        .name("topic-ids".into())
        .spawn(asking);
    spawned.ok().map(|_| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(topics: &[(&str, &str)]) -> Ids {
        let id = |text: &str| {
            let (id, _) = topic_id::from_metadata(text);
            id.unwrap()
        };
        let of = |(name, text): &(&str, &str)| (Arc::from(*name), id(&format!("t1:{text} ")));
        topics.iter().map(of).collect()
    }

    #[test]
    fn a_topic_that_has_another_id_than_at_first_was_made_anew() {
        let mut renewal = Renewal::default();
        assert!(!renewal.learn(ids(&[("a", "1"), ("b", "2")])));
        // One that is not there is not yet another one.
        assert!(!renewal.learn(ids(&[("b", "2")])));
        assert!(!renewal.learn(ids(&[("a", "1"), ("c", "1")])));
        assert!(renewal.learn(ids(&[("a", "3")])));
        assert!(renewal.happened);
    }
}
