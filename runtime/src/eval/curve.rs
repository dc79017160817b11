//! What budgets save.

use super::{Score, Setting};

/// What a budget saves beside thoughts that end themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saving {
    /// The setting that saves.
    pub setting: Setting,
    /// The share of new tokens that it saves.
    pub tokens: f64,
    /// Points of accuracy, of a hundred, that it costs; negative where it gains.
    pub points: f64,
}

/// The largest saving of tokens that costs at most `points` of accuracy; none without a run that is free to think, or
/// where nothing saves at that price.
pub fn best_saving(scores: &[Score], points: f64) -> Option<Saving> {
    // Where free thoughts get nothing right, less of them proves nothing.
    let free = scores.iter().find(|score| score.setting == Setting::Free && score.right > 0)?;
    let saving = |score: &Score| Saving {
        setting: score.setting,
        tokens: 1.0 - score.new_tokens / free.new_tokens.max(f64::MIN_POSITIVE),
        points: 100.0 * (free.accuracy() - score.accuracy()),
    };
    // An answer more or less is no rounding error.
    let fits = |saving: &Saving| saving.tokens > 0.0 && saving.points <= points + 1e-9;
    scores.iter().map(saving).filter(fits).max_by(|a, b| a.tokens.total_cmp(&b.tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_saving_within_the_price() {
        let scores = [
            Score::example(Setting::Off, 20, 5.0),
            Score::example(Setting::Budget(8), 100, 20.0),
            Score::example(Setting::Budget(32), 196, 40.0),
            Score::example(Setting::Budget(64), 197, 60.0),
            Score::example(Setting::Free, 198, 80.0),
        ];
        let best = best_saving(&scores, 1.0).unwrap();
        assert_eq!((best.setting, best.tokens), (Setting::Budget(32), 0.5));
        assert!((best.points - 1.0).abs() < 1e-9);
        assert_eq!(best_saving(&scores, 0.5).unwrap().setting, Setting::Budget(64));
        assert_eq!(best_saving(&scores, 0.0), None);
        assert_eq!(best_saving(&scores[..4], 1.0), None);
        let nothing = [Score::example(Setting::Off, 0, 5.0), Score::example(Setting::Free, 0, 80.0)];
        assert_eq!(best_saving(&nothing, 1.0), None);
    }
}
