//! What an evaluation says: a table, a document, a sentence.

use serde_json::{Value, json};

use crate::eval::{Saving, Score, Setting};

/// The table's head.
pub(super) const HEAD: &str =
    "thinking    right           95 %      new tokens   thoughts   closed      cut   s a problem";

/// A line of the table.
pub(super) fn row(score: &Score) -> String {
    let percent = |part: usize| 100.0 * part as f64 / score.problems.max(1) as f64;
    let (low, high) = score.interval();
    format!(
        "{:<8} {:6.1} %   {:5.1}..{:5.1} %   {:10.1} {:10.1} {:6.0} % {:6.0} % {:13.4}",
        score.setting,
        score.accuracy() * 100.0,
        low * 100.0,
        high * 100.0,
        score.new_tokens,
        score.thinking_tokens,
        percent(score.budget_hits),
        percent(score.cut),
        score.seconds / score.problems.max(1) as f64,
    )
}

/// A line of the table, as JSON.
pub(super) fn score(score: &Score, thinking: Option<&str>) -> Value {
    let (low, high) = score.interval();
    json!({
        "thinking": thinking,
        "budget": score.setting.budget(),
        "problems": score.problems,
        "right": score.right,
        "accuracy": score.accuracy(),
        "interval": [low, high],
        "new_tokens": score.new_tokens,
        "thinking_tokens": score.thinking_tokens,
        "answer_tokens": score.answer_tokens,
        "tag_tokens": score.tag_tokens,
        "budget_hits": score.budget_hits,
        "cut": score.cut,
        "seconds": score.seconds,
    })
}

/// What a budget saves, in a sentence.
pub(super) fn saving(saving: Saving) -> String {
    let Saving { setting, tokens, points } = saving;
    let named = match setting {
        Setting::Budget(budget) => format!("a budget of {budget}"),
        Setting::Off | Setting::Free => "thinking off".to_owned(),
    };
    let points = if points.abs() < 0.05 {
        "costs no accuracy".to_owned()
    } else if points > 0.0 {
        format!("costs {points:.1} points of accuracy")
    } else {
        format!("gains {:.1} points of accuracy", -points)
    };
    format!("{named} saves {:.1} % of the tokens and {points}", tokens * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_are_sentences() {
        let said = |setting, points| saving(Saving { setting, tokens: 0.4, points });
        let lines = [
            said(Setting::Budget(64), 0.8),
            said(Setting::Budget(64), -1.2),
            said(Setting::Off, 0.0),
            said(Setting::Off, -0.0),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        a budget of 64 saves 40.0 % of the tokens and costs 0.8 points of accuracy
        a budget of 64 saves 40.0 % of the tokens and gains 1.2 points of accuracy
        thinking off saves 40.0 % of the tokens and costs no accuracy
        thinking off saves 40.0 % of the tokens and costs no accuracy
        ");
    }
}
