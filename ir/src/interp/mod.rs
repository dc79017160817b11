//! The reference interpreter.

/// Placeholder.
pub type Eval = fn();

macro_rules! stub { ($($m:ident: $($f:ident)*;)*) => { $( /// Stub.
 pub mod $m { $( /// Stub.
 pub fn $f() {} )* } )* } }
stub! {
  norm: rms_norm gated_rms_norm;
  linear: linear add slice;
  ffn: relu2 swiglu;
  scan: causal_conv1d dt_softplus ssd_recurrent ssd_chunked;
  attention: rope kv_append paged_attention;
  head: embed gather_rows sample;
}
