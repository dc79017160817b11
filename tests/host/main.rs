//! Tests that run generated code on this machine's CPU.

mod kernels;
