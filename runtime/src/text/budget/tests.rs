use std::ops::Range;

use serde_json::json;

use super::*;
use crate::text::tests::{byte_level, tokenizer};
use crate::text::{CLOSE, Frame, OPEN};

/// A tokenizer that has every byte, and pieces behind them.
struct Vocabulary {
    text: Arc<Text>,
    pieces: Vec<String>,
}

impl Vocabulary {
    /// The id of the first piece, behind the bytes and `<end>`.
    const FIRST: u32 = 257;

    fn new(pieces: &[&str]) -> Self {
        let mut json = byte_level();
        let mut known: Vec<String> = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.len() > 1) {
            if known.iter().all(|other| other != piece) {
                known.push((*piece).to_owned());
            }
        }
        for (id, piece) in (Self::FIRST..).zip(&known) {
            json["added_tokens"].as_array_mut().unwrap().push(json!({
                "id": id, "content": piece, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": false,
            }));
        }
        let text = tokenizer(&json, u64::from(Self::FIRST) + known.len() as u64).unwrap();
        Self { text: Arc::new(text), pieces: known }
    }

    /// The token of a byte or a piece.
    fn id(&self, piece: &str) -> u32 {
        match piece.as_bytes() {
            [byte] => u32::from(*byte),
            _ => Self::FIRST + self.pieces.iter().position(|known| known == piece).unwrap() as u32,
        }
    }

    /// The bytes of a token.
    fn bytes(&self, id: u32) -> Vec<u8> {
        match u8::try_from(id) {
            Ok(byte) => vec![byte],
            Err(_) => self.pieces[(id - Self::FIRST) as usize].as_bytes().to_vec(),
        }
    }

    fn hook(&self, budget: Budget) -> ThinkingBudget {
        ThinkingBudget::new(Arc::clone(&self.text), budget).unwrap()
    }

    fn encode(&self, written: &str) -> Vec<u32> {
        self.text.encode(written, Frame::Written).unwrap()
    }
}

/// The new tokens of a turn, and which of them were forced, as a session makes them.
fn run(
    hook: &mut ThinkingBudget,
    prompt: &[u32],
    most: usize,
    mut model: impl FnMut() -> Option<u32>,
) -> Vec<(u32, bool)> {
    let force = |verdict, forced: &mut VecDeque<u32>| match verdict {
        Verdict::Force(tokens) => *forced = tokens.into(),
        Verdict::Continue => {}
        Verdict::Stop(reason) => panic!("it stops: {reason}"),
    };
    let mut forced = VecDeque::new();
    force(hook.begin(prompt), &mut forced);
    let mut generated = Vec::new();
    let mut turn = Vec::new();
    while turn.len() < most {
        let (token, is_forced) = match forced.pop_front() {
            Some(token) => (token, true),
            None => match model() {
                Some(token) => (token, false),
                None => break,
            },
        };
        generated.push(token);
        turn.push((token, is_forced));
        let grown = Grown { prompt_tokens: prompt.len(), generated: &generated };
        force(hook.after(token, grown), &mut forced);
    }
    turn
}

/// A turn's text, what was forced in brackets.
fn marked(text: &Text, turn: &[(u32, bool)]) -> String {
    let runs = turn.chunk_by(|a, b| a.1 == b.1);
    let texts = runs.map(|run| {
        let ids: Vec<u32> = run.iter().map(|(token, _)| *token).collect();
        let decoded = text.decode(&ids).unwrap();
        if run[0].1 { format!("[{decoded}]") } else { decoded }
    });
    texts.collect()
}

/// What becomes of a model that says these pieces, one a token, up to `most` new tokens.
fn within(most: usize, prompt: &str, tokens: usize, grace: Grace, says: &[&str]) -> (String, Usage) {
    let vocabulary = Vocabulary::new(says);
    let mut hook = vocabulary.hook(Budget { tokens, grace });
    let usage = hook.usage();
    let prompt = vocabulary.encode(prompt);
    let mut said = says.iter().map(|piece| vocabulary.id(piece));
    let turn = run(&mut hook, &prompt, most, || said.next());
    let counts = usage.get();
    assert_eq!(counts.thinking_tokens + counts.answer_tokens + counts.tag_tokens, turn.len());
    (marked(&vocabulary.text, &turn), counts)
}

fn says(prompt: &str, tokens: usize, grace: Grace, says: &[&str]) -> (String, usize, bool) {
    let (text, usage) = within(usize::MAX, prompt, tokens, grace, says);
    (text, usage.thinking_tokens, usage.budget_hit)
}

fn is(text: &str, thinking: usize, hit: bool) -> (String, usize, bool) {
    (text.to_owned(), thinking, hit)
}

const NO_GRACE: Grace = Grace::Tokens(0);
const OPENED: &str = "<think>\n";

#[test]
fn a_budget_of_nothing_lets_no_thought_be_sampled() {
    for grace in [NO_GRACE, Grace::Tokens(5), Grace::Percent(10)] {
        assert_eq!(says(OPENED, 0, grace, &["a", "b"]), is("[</think>\n\n]ab", 0, true));
        let opens = ["<think>", "a", "b"];
        assert_eq!(says("", 0, grace, &opens), is("<think>[</think>\n\n]ab", 0, true));
        // A turn without thoughts, and one whose thoughts the prompt has closed, are left alone.
        assert_eq!(says("", 0, grace, &["a", "b"]), is("ab", 0, false));
        assert_eq!(says("<think></think>", 0, grace, &["a", "b"]), is("ab", 0, false));
    }
}

#[test]
fn a_block_that_the_prompt_opens_is_bounded_exactly() {
    let model = ["a", " b", " c", " d", " e"];
    assert_eq!(says(OPENED, 1, NO_GRACE, &model), is("a[\n</think>\n\n] b c d e", 1, true));
    assert_eq!(says(OPENED, 3, NO_GRACE, &model), is("a b c[\n</think>\n\n] d e", 3, true));
    assert_eq!(says(OPENED, 5, NO_GRACE, &model[..4]), is("a b c d", 4, false));
    // The prompt may end within the thoughts, where a template goes on with an answer.
    assert_eq!(
        says("q<end>Assistant\n<think>\nSo", 2, NO_GRACE, &model),
        is("a b[\n</think>\n\n] c d e", 2, true)
    );
}

#[test]
fn blocks_of_the_model_add_up() {
    let twice = ["<think>", "a", "b", "</think>", "c", "<think>", "d", "e", "</think>", "f"];
    let whole = "<think>ab</think>c<think>de</think>f";
    assert_eq!(says("", 5, NO_GRACE, &twice), is(whole, 4, false));
    let cut = "<think>ab</think>c<think>d[\n</think>\n\n]e</think>f";
    assert_eq!(says("", 3, NO_GRACE, &twice), is(cut, 3, true));
    // Nothing is left for the second: it is closed at once, whatever the grace.
    let cut = "<think>ab</think>c<think>[</think>\n\n]de</think>f";
    assert_eq!(says("", 2, Grace::Tokens(9), &twice), is(cut, 2, true));
    // Again and again.
    let stubborn = ["<think>", "a", "<think>", "<think>"];
    let closed = "<think>a[\n</think>\n\n]<think>[</think>\n\n]<think>[</think>\n\n]";
    assert_eq!(says("", 1, NO_GRACE, &stubborn), is(closed, 1, true));
}

#[test]
fn a_closing_tag_outside_of_thoughts_is_text() {
    let orphan = ["a", "</think>", "b", "</think>"];
    assert_eq!(says("", 0, NO_GRACE, &orphan), is("a</think>b</think>", 0, false));
    let after = ["a", "</think>", "b", "</think>", "c"];
    assert_eq!(says(OPENED, 3, NO_GRACE, &after), is("a</think>b</think>c", 1, false));
}

#[test]
fn a_model_that_closes_in_time_is_left_alone() {
    // The tag is one token, and would be the one that is too many.
    assert_eq!(says(OPENED, 2, NO_GRACE, &["a", "</think>", "b"]), is("a</think>b", 1, false));
    // The tag's first tokens are no thoughts unless they turn out to be none of it.
    let split = ["a", "</", "think", ">", "b"];
    assert_eq!(says(OPENED, 4, NO_GRACE, &split), is("a</think>b", 1, false));
    assert_eq!(says(OPENED, 1, Grace::Tokens(3), &split), is("a</think>b", 1, false));
    // A token that holds the last thought and the tag was sampled as a thought.
    assert_eq!(says(OPENED, 2, NO_GRACE, &["a", "b</think>c", "d"]), is("ab</think>cd", 2, false));
}

#[test]
fn a_tag_under_way_is_completed() {
    // The thoughts have ended within their budget.
    let split = ["a", "</", "think", "x"];
    assert_eq!(says(OPENED, 2, NO_GRACE, &split), is("a</[think>\n\n]thinkx", 1, false));
    assert_eq!(says(OPENED, 3, NO_GRACE, &split), is("a</think[>\n\n]x", 1, false));
    assert_eq!(says(OPENED, 4, NO_GRACE, &split), is("a</thinkx[\n</think>\n\n]", 4, true));
    for at in 1..CLOSE.len() {
        let model = ["a", &CLOSE[..at], "b"];
        let wanted = format!("a{}[{}\n\n]b", &CLOSE[..at], &CLOSE[at..]);
        assert_eq!(says(OPENED, 2, NO_GRACE, &model), is(&wanted, 1, false));
        // Or they have reached it, and the grace is what the tag would exceed.
        assert_eq!(says(OPENED, 1, Grace::Tokens(1), &model), is(&wanted, 1, true));
    }
    // What has begun as a tag may be a word, and then counts.
    let word = ["</", "th", "reat>", "b"];
    assert_eq!(says(OPENED, 3, NO_GRACE, &word), is("</threat>[\n</think>\n\n]b", 3, true));
    assert_eq!(says(OPENED, 2, NO_GRACE, &word), is("</th[ink>\n\n]reat>b", 0, false));
    // In the grace, a sentence that has ended before it is no reason to cut it.
    let sentence = ["So it is.", "</", "think", ">", "b"];
    assert_eq!(says(OPENED, 2, Grace::Tokens(3), &sentence), is("So it is.</think>b", 1, false));
}

#[test]
fn ends_count_alike_whoever_chose_them() {
    let close = ["a", "</", "think", ">\n\n", "b"];
    let (natural, counts) = within(usize::MAX, OPENED, 9, NO_GRACE, &close);
    assert_eq!(natural, "a</think>\n\nb");
    assert_eq!((counts.thinking_tokens, counts.tag_tokens, counts.answer_tokens), (1, 3, 1));
    let (forced, counts) = within(usize::MAX, OPENED, 1, NO_GRACE, &["a", "b", ">\n\n"]);
    assert_eq!(forced, "a[\n</think>\n\n]b>\n\n");
    assert_eq!((counts.thinking_tokens, counts.answer_tokens), (1, 2));
}

#[test]
fn the_opening_tag_may_be_split_anywhere() {
    for at in 1..OPEN.len() {
        let model = [&OPEN[..at], &OPEN[at..], "a", "b", "c"];
        assert_eq!(says("", 2, NO_GRACE, &model), is("<think>ab[\n</think>\n\n]c", 2, true), "{at}");
    }
    let shared = ["Well <think>\nSo", "a", "b"];
    assert_eq!(says("", 1, NO_GRACE, &shared), is("Well <think>\nSoa[\n</think>\n\n]b", 1, true));
}

#[test]
fn within_the_grace_a_sentence_or_a_line_ends() {
    for end in [".", "!", "?", "。", "！", "？", "।", "؟", "\n", ".\n\n", "!”"] {
        let newline = if end.ends_with('\n') { "" } else { "\n" };
        let model = ["a", "b", "c", end, "d", "e"];
        let ended = format!("abc{end}[{newline}</think>\n\n]de");
        for budget in 2..=4 {
            assert_eq!(says(OPENED, budget, Grace::Tokens(4), &model), is(&ended, 4, true), "{end}");
        }
        // One token short of the end.
        let short = format!("abc[\n</think>\n\n]{end}de");
        assert_eq!(says(OPENED, 2, Grace::Tokens(1), &model), is(&short, 3, true), "{end}");
    }
    // No end comes.
    let model = ["a", "b", "c", "d", "e"];
    assert_eq!(says(OPENED, 2, Grace::Tokens(2), &model), is("abcd[\n</think>\n\n]e", 4, true));
    // A tenth of 20 is 2, and of 9 nothing.
    let long = ["a"; 30];
    assert_eq!(says(OPENED, 20, Grace::default(), &long).1, 22);
    assert_eq!(says(OPENED, 9, Grace::default(), &long).1, 9);
    assert_eq!(says(OPENED, 9, Grace::Percent(100), &long).1, 18);
}

#[test]
fn a_closing_may_be_cut_off_by_the_end() {
    let model = ["a", "b", "c"];
    let (text, usage) = within(4, OPENED, 2, NO_GRACE, &model);
    assert_eq!((text.as_str(), usage.tag_tokens, usage.budget_hit), ("ab[\n<]", 2, true));
    // The budget's last token is the sequence's: nothing was forced.
    let (text, usage) = within(2, OPENED, 2, NO_GRACE, &model);
    assert_eq!((text.as_str(), usage.thinking_tokens, usage.budget_hit), ("ab", 2, false));
}

#[test]
fn another_hook_that_cuts_in_delays_the_closing_only() {
    let vocabulary = Vocabulary::new(&[CLOSE]);
    let mut hook = vocabulary.hook(Budget { tokens: 1, grace: NO_GRACE });
    let [a, newline, close] = ["a", "\n", CLOSE].map(|piece| vocabulary.id(piece));
    let mut after = |token| hook.after(token, Grown { prompt_tokens: 1, generated: &[token] });
    assert_eq!(after(close), Verdict::Continue);
    for open in OPEN.bytes() {
        assert_eq!(after(u32::from(open)), Verdict::Continue);
    }
    let closing = |tokens: &[u32]| Verdict::Force(tokens.to_vec());
    assert_eq!(after(a), closing(&[newline, close, newline, newline]));
    assert_eq!(after(newline), closing(&[close, newline, newline]));
    assert_eq!(after(a), closing(&[newline, close, newline, newline]));
    for left in (0..4).rev() {
        let token = if left == 2 { close } else { newline };
        let answer = after(token);
        assert_eq!(matches!(&answer, Verdict::Force(rest) if rest.len() == left), left > 0, "{answer:?}");
    }
    assert_eq!(after(a), Verdict::Continue);
}

#[test]
fn a_tokenizer_without_the_tag_is_refused() {
    let mut json = byte_level();
    json["model"]["vocab"] = json!({"a": 0, "b": 1});
    json["added_tokens"] = json!([]);
    let text = Arc::new(tokenizer(&json, 2).unwrap());
    let refused = ThinkingBudget::new(text, Budget { tokens: 1, grace: NO_GRACE }).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the checkpoint's tokenizer cannot spell `</think>`, which ends thoughts"
    );
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

const PIECES: [&str; 12] = [
    "<think>",
    "</think>",
    "</",
    "think",
    ">\n\n",
    "ok</think>so",
    "hm<think>I",
    "漢",
    "So it is.",
    " no",
    "\n",
    "الف",
];

/// How many of a turn's bytes are read: not those at its end that may become a character.
fn whole(bytes: &[u8]) -> usize {
    let begun = |count: &usize| {
        let end = &bytes[bytes.len() - count..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    bytes.len() - (1..=bytes.len().min(3)).rev().find(begun).unwrap_or(0)
}

/// Where a turn's bytes think: from the opening tag's end to the closing one's start, and to its end.
fn blocks(bytes: &[u8], opened: bool) -> Vec<(Range<usize>, usize)> {
    let find = |tag: &str, from: usize| {
        let at = bytes[from..].windows(tag.len()).position(|window| window == tag.as_bytes());
        at.map(|at| from + at)
    };
    let mut blocks = Vec::new();
    let mut start = if opened { Some(0) } else { find(OPEN, 0).map(|at| at + OPEN.len()) };
    while let Some(from) = start {
        let Some(end) = find(CLOSE, from) else {
            // A part of the tag at the end is no thought.
            let text = &bytes[from..whole(bytes).max(from)];
            let part = (0..CLOSE.len()).rev().find(|at| text.ends_with(&CLOSE.as_bytes()[..*at]));
            blocks.push((from..from + text.len() - part.unwrap_or(0), usize::MAX));
            break;
        };
        blocks.push((from..end, end + CLOSE.len()));
        start = find(OPEN, end + CLOSE.len()).map(|at| at + OPEN.len());
    }
    blocks
}

#[test]
fn no_budget_is_exceeded_by_more_than_its_grace() {
    let vocabulary = Vocabulary::new(&PIECES);
    let prompts = ["", OPENED].map(|prompt| vocabulary.encode(prompt));
    let (mut hits, mut completed) = (0, 0);
    for seed in 0..1000 {
        let mut random = Random(seed);
        let grace = match random.below(3) {
            0 => NO_GRACE,
            1 => Grace::Tokens(random.below(12)),
            _ => Grace::Percent(random.below(101) as u8),
        };
        let budget = Budget { tokens: random.below(40), grace };
        let opened = random.below(2) == 1;
        let most = random.below(200) + 1;
        let mut hook = vocabulary.hook(budget);
        let usage = hook.usage();
        let mut spelled = VecDeque::new();
        // As likely any byte, any piece, or a tag or text of some script byte by byte.
        let model = || {
            if let Some(byte) = spelled.pop_front() {
                return Some(u32::from(byte));
            }
            match random.below(4) {
                0 => spelled.extend(["<think>", "</think>", "</thin", "é漢😀।"][random.below(4)].bytes()),
                1 => return Some(random.below(256) as u32),
                _ => return Some(vocabulary.id(PIECES[random.below(PIECES.len())])),
            }
            spelled.pop_front().map(u32::from)
        };
        let turn = run(&mut hook, &prompts[usize::from(opened)], most, model);
        let counts = usage.get();
        assert_eq!(turn.len(), most, "seed {seed}");
        let forced = turn.iter().filter(|(_, forced)| *forced).count();
        let reached = counts.thinking_tokens >= budget.tokens;
        assert_eq!(counts.budget_hit, forced > 0 && reached, "seed {seed}");
        completed += usize::from(forced > 0 && !reached);
        hits += usize::from(counts.budget_hit);

        // The same counts, from the bytes of the whole turn.
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (token, forced) in &turn {
            let from = bytes.len();
            bytes.extend(vocabulary.bytes(*token));
            places.push((from..bytes.len(), *forced));
        }
        let blocks = blocks(&bytes, opened);
        let sampled = places.iter().filter(|(_, forced)| !forced).map(|(place, _)| place);
        let thinks = |place: &&Range<usize>| {
            let block =
                blocks.iter().find(|(inner, close)| inner.start <= place.start && place.start < *close);
            block.is_some_and(|(inner, close)| {
                let after = bytes.get(*close..place.end).unwrap_or_default();
                place.start < inner.end
                    || place.start >= whole(&bytes)
                    || !String::from_utf8_lossy(after).trim().is_empty()
            })
        };
        // A token that opens a block, whatever else it says, is a tag.
        let opens = |place: &Range<usize>| {
            blocks.iter().any(|(inner, _)| place.start < inner.start && inner.start <= place.end)
        };
        let thinking = sampled.filter(thinks).filter(|place| !opens(place)).count();
        assert_eq!(counts.thinking_tokens, thinking, "seed {seed}: {}", marked(&vocabulary.text, &turn));
        assert!(thinking <= budget.limit(), "seed {seed}: {thinking} of {budget:?}");
        assert_eq!(counts.thinking_tokens + counts.answer_tokens + counts.tag_tokens, most);
    }
    assert!(hits > 300 && completed > 20, "{hits}, {completed}");
}

#[test]
fn texts_of_many_scripts_come_whole_up_to_the_closing() {
    let written = "Så er det. 漢字です。हाँ। نعم؟ Да! 😀\n";
    let vocabulary = Vocabulary::new(&[CLOSE]);
    let (bytes, prompt) = (vocabulary.encode(written), vocabulary.encode(OPENED));
    for tokens in 0..bytes.len() {
        // So long a grace that an end comes.
        let budget = Budget { tokens, grace: Grace::Tokens(bytes.len()) };
        let mut hook = vocabulary.hook(budget);
        let mut said = bytes.iter().copied();
        let turn = run(&mut hook, &prompt, usize::MAX, || said.next());
        assert!(hook.usage().get().budget_hit);
        let mut stream = TextStream::new(Arc::clone(&vocabulary.text));
        let mut whole = String::new();
        for (token, _) in &turn {
            let piece = stream.push(*token).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{tokens}: {piece}");
            whole.push_str(&piece);
        }
        let (thoughts, answer) = whole.split_once("</think>\n\n").unwrap();
        assert!(ends_sentence(thoughts) || thoughts.is_empty(), "{tokens}: {thoughts}");
        let joined = thoughts.strip_suffix('\n').unwrap_or(thoughts).to_owned() + answer;
        assert_eq!(joined.trim_end(), written.trim_end(), "{tokens}");
    }
}
