//! What `nemort bench --profile` shows of the kernels' times.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::predicted::{Prediction, Predictions};
use crate::device::LaunchTime;

/// A kernel's times in one block of one program, for scripts.
pub(super) fn row(time: &LaunchTime, predictions: &Predictions) -> serde_json::Value {
    let predicted = predictions.get(time);
    json!({
        "phase": time.phase.name(),
        "first_tokens": time.tokens.start(),
        "last_tokens": time.tokens.end(),
        "block": time.block,
        "calls": time.calls,
        "op": time.op,
        "kernel": time.symbol,
        "count": time.count,
        "seconds": time.total.as_secs_f64(),
        "predicted_tokens": predicted.map(|predicted| predicted.tokens),
        "predicted_bytes": predicted.map(|predicted| predicted.bytes),
        "predicted_seconds": predicted.map(|predicted| predicted.seconds),
    })
}

/// For each program its blocks, for each block its kernels, the slowest first. A block's line has the time of one
/// of its calls, a kernel's line that of one of its launches, and what was predicted of it; `bandwidth` is what
/// a plain stream reaches, in bytes a second.
pub(super) fn table(times: &[LaunchTime], predictions: &Predictions, bandwidth: Option<f64>) -> String {
    let mut text = String::new();
    for times in groups(times, |time| (time.phase, *time.tokens.start())).values() {
        let LaunchTime { phase, tokens, .. } = times[0];
        let all = total(times);
        let predicted_for = times.iter().find_map(|time| predictions.get(time));
        let of =
            predicted_for.map_or_else(String::new, |p| format!("; predictions are for {} tokens", p.tokens));
        text +=
            &format!("\n{}, {tokens:?} tokens: {:.1} ms in kernels{of}\n", phase.name(), seconds(all) * 1e3);
        let mut blocks: Vec<_> = groups(times.iter().copied(), |time| &time.block).into_values().collect();
        blocks.sort_by_key(|times| Reverse(total(times)));
        for mut times in blocks {
            let LaunchTime { block, calls, .. } = times[0];
            text += &line(total(&times), all, *calls, &format!("block {block}"));
            times.sort_by_key(|time| Reverse(time.total));
            for time in times {
                let beside = predictions.get(time).map_or_else(String::new, |p| beside(time, p, bandwidth));
                let what = format!("  {}  ({}){beside}", time.op, time.symbol);
                text += &line(time.total, all, time.count, &what);
            }
        }
    }
    text
}

/// What was predicted of a launch, and the bandwidth that it reached if it moved the bytes that it was to move.
fn beside(time: &LaunchTime, predicted: Prediction, bandwidth: Option<f64>) -> String {
    let each = seconds(time.total) / time.count.max(1) as f64;
    let rate = predicted.bytes / each.max(1e-12);
    let share = bandwidth.map_or_else(String::new, |most| format!(", {:.0} %", 100.0 * rate / most.max(1.0)));
    format!("  predicted {:.2} us, {:.1} GB/s{share}", predicted.seconds * 1e6, rate / 1e9)
}

/// Times with the same key together.
fn groups<'a, K: Ord>(
    times: impl IntoIterator<Item = &'a LaunchTime>,
    key: impl Fn(&'a LaunchTime) -> K,
) -> BTreeMap<K, Vec<&'a LaunchTime>> {
    let mut groups: BTreeMap<K, Vec<_>> = BTreeMap::new();
    for time in times {
        groups.entry(key(time)).or_default().push(time);
    }
    groups
}

fn total(times: &[&LaunchTime]) -> Duration {
    times.iter().map(|time| time.total).sum()
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Share of the program, time in all, how often, and how long each.
fn line(time: Duration, all: Duration, count: u64, what: &str) -> String {
    format!(
        "  {:5.1} % {:10.3} ms {count:8} x {:9.2} us  {what}\n",
        100.0 * seconds(time) / seconds(all).max(1e-12),
        seconds(time) * 1e3,
        seconds(time) * 1e6 / count.max(1) as f64,
    )
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use nemo_ir::plan::Phase;

    use super::*;

    fn time(
        (phase, tokens): (Phase, RangeInclusive<u64>),
        (block, calls): (&str, u64),
        (op, count): (&str, u64),
        micros: u64,
    ) -> LaunchTime {
        LaunchTime {
            phase,
            tokens,
            block: block.to_owned(),
            calls,
            op: op.to_owned(),
            symbol: format!("{op}_0"),
            count,
            total: Duration::from_micros(micros),
        }
    }

    #[test]
    fn blocks_stand_in_their_program_and_kernels_in_their_block() {
        let (one, more) = (|| (Phase::Decode, 1..=1), || (Phase::Decode, 2..=8));
        let times = [
            time((Phase::Prefill, 1..=512), ("embed", 1), ("embed", 1), 40),
            time(more(), ("embed", 2), ("embed", 2), 10),
            time(one(), ("embed", 4), ("embed", 4), 50),
            time(one(), ("layer", 8), ("norm", 8), 50),
            time(one(), ("layer", 8), ("linear", 16), 400),
        ];
        let wanted = "
decode, 1..=1 tokens: 0.5 ms in kernels
   90.0 %      0.450 ms        8 x     56.25 us  block layer
   80.0 %      0.400 ms       16 x     25.00 us    linear  (linear_0)
   10.0 %      0.050 ms        8 x      6.25 us    norm  (norm_0)
   10.0 %      0.050 ms        4 x     12.50 us  block embed
   10.0 %      0.050 ms        4 x     12.50 us    embed  (embed_0)

decode, 2..=8 tokens: 0.0 ms in kernels
  100.0 %      0.010 ms        2 x      5.00 us  block embed
  100.0 %      0.010 ms        2 x      5.00 us    embed  (embed_0)

prefill, 1..=512 tokens: 0.0 ms in kernels
  100.0 %      0.040 ms        1 x     40.00 us  block embed
  100.0 %      0.040 ms        1 x     40.00 us    embed  (embed_0)
";
        let none = Predictions::default();
        assert_eq!(table(&times, &none, None), wanted);
        assert_eq!(table(&[], &none, None), "");
        let row = row(&times[4], &none);
        assert_eq!((&row["first_tokens"], &row["last_tokens"]), (&1.into(), &1.into()));
        assert_eq!((&row["block"], &row["calls"], &row["count"]), (&"layer".into(), &8.into(), &16.into()));
    }

    #[test]
    fn predictions_stand_beside_their_kernels() {
        let json = r#"{"programs": [{"phase": "decode", "first_tokens": 1, "last_tokens": 1, "tokens": 1,
            "blocks": [[2, {"name": "layer", "kernels": [{"op": "linear", "bytes": 1000000, "seconds": 8e-6}]}]]}]}"#;
        let predictions: Predictions = serde_json::from_str(json).unwrap();
        let times = [
            time((Phase::Decode, 1..=1), ("layer", 2), ("linear", 4), 40),
            time((Phase::Decode, 1..=1), ("layer", 2), ("norm", 2), 10),
        ];
        let wanted = "
decode, 1..=1 tokens: 0.1 ms in kernels; predictions are for 1 tokens
  100.0 %      0.050 ms        2 x     25.00 us  block layer
   80.0 %      0.040 ms        4 x     10.00 us    linear  (linear_0)  predicted 8.00 us, 100.0 GB/s, 25 %
   20.0 %      0.010 ms        2 x      5.00 us    norm  (norm_0)
";
        assert_eq!(table(&times, &predictions, Some(400e9)), wanted);
        assert!(table(&times, &predictions, None).contains("predicted 8.00 us, 100.0 GB/s\n"));
        assert_eq!(row(&times[0], &predictions)["predicted_seconds"], 8e-6);
        assert!(row(&times[1], &predictions)["predicted_seconds"].is_null());
    }
}
