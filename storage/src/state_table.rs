//! Complete tables of a machine for tests: every state has an answer to every input, in words.

/// A state, then what follows each input, in their order: orders as words with commas between them, `-` for none.
pub type Row<const INPUTS: usize> = (&'static str, [&'static str; INPUTS]);

/// Checks every cell. `orders` brings a machine into the state it is given, and tells what it orders upon the input.
pub fn check<const INPUTS: usize>(
    inputs: &[&str; INPUTS],
    rows: &[Row<INPUTS>],
    orders: impl Fn(&str, &str) -> Vec<&'static str>,
) {
    let mut wrong = Vec::new();
    for (state, expected) in rows {
        for (input, expected) in inputs.iter().zip(expected) {
            let words = orders(state, input);
            let got = if words.is_empty() { "-".to_string() } else { words.join(", ") };
            if got != *expected {
                wrong.push(format!("{state}, {input}: expected {expected}, got {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
