//! What the outcomes of a setting come to.

use super::Setting;

/// What became of one problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether the answer is right.
    pub right: bool,
    /// Every new token.
    pub new_tokens: usize,
    /// Those of thoughts.
    pub thinking_tokens: usize,
    /// Those of the answer.
    pub answer_tokens: usize,
    /// Those of tags.
    pub tag_tokens: usize,
    /// Whether the budget closed the thoughts.
    pub budget_hit: bool,
    /// Whether the sequence had no room to end itself.
    pub cut: bool,
}

/// The outcomes of one setting together. Token counts are means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// How the thoughts were set.
    pub setting: Setting,
    /// Problems.
    pub problems: usize,
    /// Right answers.
    pub right: usize,
    /// New tokens of a problem.
    pub new_tokens: f64,
    /// Tokens of thoughts of a problem.
    pub thinking_tokens: f64,
    /// Tokens of the answer of a problem.
    pub answer_tokens: f64,
    /// Tokens of tags of a problem.
    pub tag_tokens: f64,
    /// Problems whose thoughts the budget closed.
    pub budget_hits: usize,
    /// Problems cut by their length.
    pub cut: usize,
    /// How long all problems took together.
    pub seconds: f64,
}

impl Score {
    /// The score of a setting.
    pub fn of(setting: Setting, outcomes: &[Outcome], seconds: f64) -> Self {
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
        let mean = |of: fn(&Outcome) -> usize| {
            outcomes.iter().map(of).sum::<usize>() as f64 / outcomes.len().max(1) as f64
        };
        Self {
            setting,
            problems: outcomes.len(),
            right: count(|outcome| outcome.right),
            new_tokens: mean(|outcome| outcome.new_tokens),
            thinking_tokens: mean(|outcome| outcome.thinking_tokens),
            answer_tokens: mean(|outcome| outcome.answer_tokens),
            tag_tokens: mean(|outcome| outcome.tag_tokens),
            budget_hits: count(|outcome| outcome.budget_hit),
            cut: count(|outcome| outcome.cut),
            seconds,
        }
    }

    /// The share of right answers.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.problems.max(1) as f64
    }

    /// Where the accuracy over all problems of the kind is, with a confidence of 95 %: Wilson's score interval.
    pub fn interval(&self) -> (f64, f64) {
        if self.problems == 0 {
            return (0.0, 1.0);
        }
        let (n, p, z) = (self.problems as f64, self.accuracy(), 1.959_964);
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let bound = |value: f64| (value / (1.0 + z * z / n)).clamp(0.0, 1.0);
        (bound(middle - half), bound(middle + half))
    }
}

#[cfg(test)]
impl Score {
    /// A score of 200 problems.
    pub(super) fn example(setting: Setting, right: usize, new_tokens: f64) -> Self {
        Self { problems: 200, right, new_tokens, ..Self::of(setting, &[], 0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_add_up() {
        let outcomes = [
            Outcome {
                right: true,
                new_tokens: 10,
                thinking_tokens: 6,
                answer_tokens: 2,
                ..Outcome::default()
            },
            Outcome { budget_hit: true, cut: true, new_tokens: 5, ..Outcome::default() },
        ];
        let score = Score::of(Setting::Free, &outcomes, 2.0);
        assert_eq!((score.problems, score.right, score.budget_hits, score.cut), (2, 1, 1, 1));
        assert_eq!((score.new_tokens, score.thinking_tokens, score.answer_tokens), (7.5, 3.0, 1.0));
        assert_eq!(score.accuracy(), 0.5);
        assert_eq!(Score::of(Setting::Off, &[], 0.0).interval(), (0.0, 1.0));
    }

    #[test]
    fn the_interval_is_wilsons() {
        let score = |right, problems| Score { right, problems, ..Score::of(Setting::Off, &[], 0.0) };
        // Values of Wilson's interval as published in tables: 81 of 263, and the ends of the scale.
        let (low, high) = score(81, 263).interval();
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = score(10, 10).interval();
        assert!((low - 0.7225).abs() < 1e-4 && high > 0.999_999, "{low} {high}");
        assert_eq!(score(0, 10).interval().0, 0.0);
    }
}
