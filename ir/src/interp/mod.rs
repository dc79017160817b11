//! The reference interpreter: executes blocks and programs straight from the op table, slowly and
//! obviously. It is the oracle for every later stage.
//!
//! One file per op family; each op is one function over [`EvalArgs`]. Everything inside an op is
//! computed in f64; what happens to a result then is [`Numerics`].

mod args;
pub mod attention;
pub mod ffn;
pub mod head;
pub mod linear;
pub mod norm;
mod run;
mod sample;
pub mod scan;
mod state;
mod step;
mod tensor;

pub use args::{Eval, EvalArgs, EvalError, Numerics};
pub use run::{Outputs, run_block, run_program};
pub use state::StateStore;
pub use step::{Logits, Sequence, Step, StepError};
pub use tensor::{Data, Tensor};
