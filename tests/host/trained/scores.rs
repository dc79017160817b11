//! What the models get right, by how their thoughts are set.

use nemo_tests::trained::{TRAINED, folder, home};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{lines, room};

/// The numbers of a question.
fn numbers(question: &str) -> Vec<u32> {
    let digits = question.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.map(|digits| digits.parse().expect("a number")).collect()
}

fn problems() -> Vec<Value> {
    lines(&std::fs::read(home().join("problems.jsonl")).expect("the problems"))
}

/// The rule by which `task.py` holds problems out of training.
#[test]
fn no_problem_was_trained_on() {
    let problems = problems();
    assert!(problems.len() >= 500);
    let mut seen = Vec::new();
    for problem in &problems {
        let mut numbers = numbers(problem["messages"][0]["content"].as_str().expect("a question"));
        numbers.sort_unstable();
        assert!((2..=5).contains(&numbers.len()), "{problem}");
        assert_eq!(json!(numbers.iter().sum::<u32>().to_string()), problem["answer"], "{problem}");
        let key = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join("+");
        let digest = Sha256::digest(&key);
        let hash = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        assert_eq!(hash % 8, 0, "{key} is not held out");
        seen.push(numbers);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), problems.len());
}

#[test]
fn thinking_helps_and_budgets_are_kept() {
    for name in TRAINED {
        let room = room(name, "bf16");
        let some: String = problems().iter().take(200).map(|problem| format!("{problem}\n")).collect();
        room.write("problems.jsonl", some);
        let told = room.json(&format!(
            "nemort eval model.nemo --weights '{}' --problems problems.jsonl --budgets off,none,0,16,40,128 \
             --save saved.jsonl --json",
            folder(name).display()
        ));
        let right = |setting: usize| told["scores"][setting]["accuracy"].as_f64().expect("an accuracy");
        let (off, on) = (right(0), right(1));
        println!("{name}: off {off}, on {on}");
        assert!(on >= 0.95 && off <= on - 0.2, "{name}: off {off}, on {on}");
        let saved = lines(&room.read("saved.jsonl"));
        let of = |budget: Option<u64>| {
            let on = saved.iter().filter(|line| line["thinking"] == "on");
            on.filter(|line| line["budget"].as_u64() == budget).collect::<Vec<_>>()
        };
        let off: Vec<_> = saved.iter().filter(|line| line["thinking"] == "off").collect();
        assert!(off.len() == 200 && off.iter().all(|line| line["thinking_tokens"] == 0));
        for budget in [0, 16, 40, 128] {
            let lines = of(Some(budget));
            assert_eq!(lines.len(), 200);
            for line in lines {
                let thought = line["thinking_tokens"].as_u64().expect("a count");
                assert!(thought <= budget + budget / 10, "{name}, budget {budget}: {line}");
            }
        }
        assert!(of(Some(0)).iter().all(|line| line["budget_hit"] == true));
        // A budget that is not reached changes nothing.
        let tokens = |budget| {
            let mut lines: Vec<_> =
                of(budget).iter().map(|line| (line["line"].as_u64(), line["tokens"].clone())).collect();
            lines.sort_by_key(|(line, _)| *line);
            lines
        };
        assert_eq!(tokens(Some(128)), tokens(None), "{name}");
    }
}
