//! Weights of preferences (RFC 9110 §12.4.2).

/// The weight of a preference that names none, in thousandths.
pub(crate) const MAX: u16 = 1000;

/// Reads a `qvalue` in thousandths. `None` if it is not one.
pub(crate) fn parse(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut digits = decimals.iter().copied().chain(std::iter::repeat(b'0'));
    let thousandths = (0..3).try_fold(0, |sum, _| {
        let digit = digits.next().filter(u8::is_ascii_digit)?;
        Some(sum * 10 + u16::from(digit - b'0'))
    })?;
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_three_decimals_at_most() {
        for (text, weight) in
            [("0", 0), ("1", 1000), ("0.5", 500), ("0.25", 250), ("0.001", 1), ("1.000", 1000), ("0.", 0)]
        {
            assert_eq!(parse(text.as_bytes()), Some(weight), "{text}");
        }
        for text in ["", "2", "1.001", "0.0001", "0,5", "-1", ".5", "0.x", "+0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
