//! Stage 1: what producing systems wrote becomes an event.
//!
//! In: a record of a source topic. Out: an [`Event`](crate::event::Event), or the reason why it is none. Pure: the reader that brings the records is
//! `kafka::consumer`, and what happens to either answer is decided in `pipeline`.

pub mod decode;
mod inline;
