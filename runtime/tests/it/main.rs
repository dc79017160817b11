//! The runtime as its users see it: as a library and as a command, on a toy model whose kernels the
//! system's C compiler makes.

mod budget;
mod command;
mod engine;
mod eval;
mod fake;
mod gpu;
mod libcuda;
mod ranges;
mod session;
mod toy;
