//! Evaluation: what a model gets right, and how many tokens it takes, by how its thoughts are set.
//!
//! Nothing here runs a model: problems come from a file, outcomes from whoever ran them.

mod answer;
mod curve;
mod plot;
mod problems;
mod score;
mod setting;

pub use answer::Matching;
pub use curve::{Saving, best_saving};
pub use plot::{PlotError, Titles, draw};
pub use problems::{Problem, ProblemError, open};
pub use score::{Outcome, Score};
pub use setting::Setting;
