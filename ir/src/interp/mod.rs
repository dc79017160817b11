//! The reference interpreter: executes blocks and programs straight from the op table, slowly and
//! obviously. It is the oracle for every later stage.
//!
//! One file per op family; each op is one function over [`EvalArgs`]. Everything inside an op is
//! computed in f64; what happens to a result then is [`Numerics`].
//!
//! ```
//! use std::collections::BTreeMap;
//! use nemo_ir::interp::{Numerics, Sequence, Step, Tensor, run_block};
//!
//! let block = nemo_ir::text::parse_block(
//!     "block up(%x: bf16[T,2]) {
//!        weight @up: bf16[3,2]
//!        %0 = linear(%x, @up) {dtype: bf16} : bf16[T,3]
//!        %1 = relu2(%0) {dtype: bf16} : bf16[T,3]
//!        return y = %1
//!      }",
//! )?;
//! let step = Step::of(&[Sequence { tokens: vec![7], ..Sequence::default() }]);
//! let inputs = BTreeMap::from([("x".to_owned(), Tensor::real([1, 2], vec![1.0, 2.0]))]);
//! let up = |_: &str, _: &_| Tensor::real([3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, -1.0]);
//! let outputs = run_block(&block, &inputs, up, &mut BTreeMap::new(), &step, Numerics::Declared)?;
//! assert_eq!(outputs["y"], Tensor::real([1, 3], vec![1.0, 4.0, 0.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
