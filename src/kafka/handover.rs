//! Rebalances: partitions come, and go to another member.
//!
//! A revoke is answered in three steps: no work of the partition may begin, what is under way has a few seconds to end,
//! then the frontier is committed and the partition handed back. Only so does a rate limit hold across a hand-over
//! (promise 5) and does the next owner repeat little.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::Error;
use super::books::Place;
use super::ledger::Commit;
use super::membership::{Change, Membership};
use super::start;
use super::topic_id;
use super::turns::{Life, Turns};

/// How long a revoked partition's work that is under way may take to end before the partition is handed back.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(3);
/// As long as receipts come back it goes on, each time for so long …
const HAND_BACK_STEP: Duration = Duration::from_secs(1);
/// … up to this: what was written and is not acknowledged yet would be written again by the next owner.
const HAND_BACK_MOST: Duration = Duration::from_secs(20);
/// Far shorter than a session, because an assignment waits for it.
const ID_WAIT: Duration = Duration::from_secs(1);
const ASSIGN_PAUSE: Duration = Duration::from_millis(500);

/// A partition that is read by itself.
pub(super) struct Strand {
    pub(super) place: Place,
    pub(super) queue: PartitionQueue<Membership>,
}

/// What is to be handed back, and by when at the latest.
pub(super) struct HandBack {
    pub(super) places: Vec<Place>,
    pub(super) until: Duration,
    /// Not extended beyond this.
    pub(super) at_most: Duration,
    pub(super) outstanding: usize,
}

impl Life {
    pub(super) fn answer_rebalance(&mut self, turns: &mut Turns) -> Result<(), Error> {
        while let Some(change) = self.consumer.context().next_change() {
            match change {
                Change::Assigned(places) => {
                    if let Err(failure) = self.assigned(&places, turns) {
                        warn!(stage = turns.settings.stage, %failure, "could not begin with the assigned partitions; trying again");
                        self.consumer.context().put_back(Change::Assigned(places));
                        std::thread::sleep(ASSIGN_PAUSE);
                        return Ok(());
                    }
                }
                Change::Revoked(places) => {
                    debug!(
                        stage = turns.settings.stage,
                        ?places,
                        "partitions are taken back"
                    );
                    for place in &places {
                        self.books.hand_back(place);
                    }
                    turns.stage.fenced();
                    let now = turns.now();
                    self.handing_back = Some(HandBack {
                        places,
                        until: now + HAND_BACK_LIMIT,
                        at_most: now + HAND_BACK_MOST,
                        outstanding: self.books.outstanding(),
                    });
                }
                Change::Lost(places) => {
                    warn!(
                        stage = turns.settings.stage,
                        ?places,
                        "partitions are lost to another member"
                    );
                    self.drop_places(&places);
                    turns.stage.fenced();
                }
            }
        }
        let Some(hand_back) = &mut self.handing_back else {
            return Ok(());
        };
        let outstanding = self.books.outstanding();
        if outstanding < hand_back.outstanding {
            hand_back.outstanding = outstanding;
            let longer = turns.now() + HAND_BACK_STEP;
            hand_back.until = hand_back.until.max(longer.min(hand_back.at_most));
        }
        if outstanding > 0 && turns.now() < hand_back.until {
            return Ok(());
        }
        fail::fail_point!(&format!("{}-in-revoke", turns.settings.stage), |_| {
            crate::failpoint::die()
        });
        self.take_settlements();
        if let Err(failure) = self.commit_now(turns) {
            warn!(stage = turns.settings.stage, %failure, "the commit before a hand-over failed; the next owner repeats some records");
        }
        if let Some(hand_back) = self.handing_back.take() {
            self.drop_places(&hand_back.places);
        }
        self.consumer.unassign()?;
        Ok(())
    }

    fn drop_places(&mut self, places: &[Place]) {
        for place in places {
            self.books.revoke(place);
        }
        self.strands
            .retain(|strand| !places.contains(&strand.place));
    }

    fn assigned(&mut self, places: &[Place], turns: &mut Turns) -> Result<(), Error> {
        let settings = &turns.settings;
        let topics: BTreeSet<&str> = places.iter().map(|(topic, _)| topic.as_ref()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = topic_id::of_topics(self.consumer.client(), &topics, ID_WAIT);
        // Without an answer they are learned a moment later: a controller that is away must not keep records from being read, and
        // the embedded broker has none.
        if self.renewal.learn(ids.unwrap_or_default()) {
            // The next turn begins anew.
            return Ok(());
        }
        let starts = start::positions(
            &self.consumer,
            places,
            settings.start,
            settings.keeps_place,
            self.renewal.ids(),
        )?;
        let mut assignment = TopicPartitionList::new();
        for position in &starts {
            let (topic, partition) = &position.place;
            assignment.add_partition_offset(
                topic,
                *partition,
                Offset::Offset(position.offset.0),
            )?;
            self.books
                .assign(position.place.clone(), position.committed.clone());
        }
        // Before fetching begins: a batch that went to the main queue could be read after a later one of the partition's
        // own queue, and the books would take it for a repetition. librdkafka leaves a queue that is split alone when it
        // starts to fetch (RD_KAFKA_Q_F_FWD_APP in rdkafka_partition.c).
        if settings.split {
            self.strands = starts
                .iter()
                .filter_map(|position| {
                    let queue = self
                        .consumer
                        .split_partition_queue(&position.place.0, position.place.1)?;
                    Some(Strand {
                        place: position.place.clone(),
                        queue,
                    })
                })
                .collect();
        }
        self.consumer.assign(&assignment)?;
        // A start that was never committed is committed now: otherwise a group that begins at the end, and dies before
        // its first record, would begin at a later end and skip what came between.
        let fresh: Vec<(Place, Commit)> = starts
            .iter()
            .filter(|position| position.committed.is_none())
            .map(|position| {
                let commit = Commit {
                    offset: position.offset,
                    note: String::new(),
                };
                (position.place.clone(), commit)
            })
            .collect();
        if !fresh.is_empty() && turns.settings.keeps_place {
            self.consumer
                .commit(&self.list_of(&fresh)?, CommitMode::Async)?;
        }
        info!(
            stage = turns.settings.stage,
            partitions = places.len(),
            "assigned"
        );
        turns.status.joined();
        Ok(())
    }
}
