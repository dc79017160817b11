use nemort::session::{Finish, Grown, Hook, Request, Sampling, Session, Verdict};

use crate::engine::engine;
use crate::toy::{continued, next};

#[test]
fn one_prompt_longer_than_a_chunk() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let prompt: Vec<u32> = (0..75).map(|n| n * 5 % 16).collect();
    let mut seen = Vec::new();
    let (tokens, finish) =
        session.generate(Request::new(prompt.clone(), 60), |token| seen.push(token)).unwrap();
    assert_eq!(tokens, continued(&prompt, 60));
    assert_eq!((seen, finish), (tokens, Finish::Length));
    assert!(session.is_idle());
}

#[test]
fn many_sequences_share_the_engine_and_none_notices() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    // More sequences than slots, of all lengths: some wait, steps are mixed, slots are used again.
    let prompts: Vec<Vec<u32>> =
        (1..12).map(|n| (0..n * n % 23 + 1).map(|k| (k * 3 + n) % 16).collect()).collect();
    let mut ids = Vec::new();
    for (n, prompt) in prompts.iter().enumerate() {
        ids.push(session.submit(Request::new(prompt.clone(), 5 + n * 7)).unwrap());
    }
    let mut tokens = vec![Vec::new(); ids.len()];
    while !session.is_idle() {
        for event in session.advance().unwrap() {
            let at = ids.iter().position(|id| *id == event.sequence).unwrap();
            tokens[at].push(event.token);
        }
    }
    for (n, prompt) in prompts.iter().enumerate() {
        assert_eq!(tokens[n], continued(prompt, 5 + n * 7), "sequence {n}");
    }
}

/// Forces two tokens after the third, and stops after the sixth.
struct Script;

impl Hook for Script {
    fn after(&mut self, token: u32, grown: Grown<'_>) -> Verdict {
        assert_eq!(grown.generated.last(), Some(&token));
        match grown.generated.len() {
            3 => Verdict::Force(vec![7, 9]),
            6 => Verdict::Stop("script".to_owned()),
            _ => Verdict::Continue,
        }
    }
}

#[test]
fn hooks_force_and_stop() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let request = Request { hooks: vec![Box::new(Script)], ..Request::new(vec![1, 2], 20) };
    let (tokens, finish) = session.generate(request, |_| {}).unwrap();
    let mut wanted = continued(&[1, 2], 3);
    wanted.extend([7, 9]);
    wanted.push(next(&[&[1, 2], &wanted[..]].concat()));
    assert_eq!((tokens, finish.name()), (wanted, "script"));
}

#[test]
fn an_end_token_is_the_last() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let all = continued(&[1, 2], 20);
    let end = all[4];
    let until = all.iter().position(|token| *token == end).unwrap();
    let request = Request { end: vec![99, end], ..Request::new(vec![1, 2], 20) };
    let (tokens, finish) = session.generate(request, |_| {}).unwrap();
    assert_eq!((&tokens[..], finish), (&all[..=until], Finish::EndOfText));
}

#[test]
fn the_last_token_needs_no_room() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    for (prompt, new) in [(200, 57), (256, 1), (1, 256)] {
        let wanted = continued(&vec![1; prompt], new);
        let (tokens, finish) = session.generate(Request::new(vec![1; prompt], new), |_| {}).unwrap();
        assert_eq!((tokens, finish), (wanted, Finish::Length), "{prompt} and {new}");
    }
}

#[test]
fn requests_that_can_never_run_are_refused() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let mut message = |request| session.submit(request).unwrap_err().to_string();
    assert_eq!(message(Request::new(vec![], 1)), "the prompt has no tokens");
    assert_eq!(message(Request::new(vec![1], 0)), "at least one new token must be asked for");
    assert_eq!(message(Request::new(vec![16], 1)), "the prompt's token 16 is not in the vocabulary of 16");
    let long = message(Request::new(vec![1; 200], 58));
    assert_eq!(long, "200 prompt tokens and 58 new ones do not fit the context of 256");
    let full = message(Request::new(vec![1; 257], 1));
    assert_eq!(full, "257 prompt tokens and 1 new one do not fit the context of 256");
    let hot = Sampling { temperature: -1.0, ..Sampling::default() };
    let hot = message(Request { sampling: hot, ..Request::new(vec![1], 1) });
    assert_eq!(hot, "temperature is -1, but must be finite and at least 0");
}
