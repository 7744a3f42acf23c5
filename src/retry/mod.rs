//! Stage 4: not now, or not ever.
//!
//! In: what an attempt came to, records of the delay topics, dead letters to send in again. Out: which rung a delivery waits on and until when, when a waiting
//! record is released, and the form of a dead letter. Nothing here sends HTTP.

pub mod dead_letter;
pub mod ladder;
pub mod release;
pub mod replay;
