//! Matching a device's modalias against the patterns of `modules.alias` (fnmatch(3) without flags: `*`, `?`, `[...]`).

/// True when `text` matches `pattern` as a whole. Linear in practice: on a mismatch only the last `*` is retried.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star: the pattern behind it, and the text it has not swallowed yet.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let step = match text.get(t) {
            None if p == pattern.len() => return true,
            // The text is used up, and no later start of the last star can make it longer.
            None => return false,
            Some(&byte) => one(pattern, p, byte),
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after_star, from))) => {
                p = after_star;
                t = from + 1;
                retry = Some((after_star, t));
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte at `p`; the index behind the matched element.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => set(pattern, p, byte),
        other => (other == byte).then_some(p + 1),
    }
}

/// A bracket expression, such as `[0-9A-F]` or `[!x]`. One that is never closed stands for a plain `[`.
fn set(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let Some(length) = pattern
        .get(p + 2..)
        .and_then(|rest| rest.iter().position(|b| *b == b']'))
    else {
        return (byte == b'[').then_some(p + 1);
    };
    let close = p + 2 + length;
    let inner = pattern.get(p + 1..close)?;
    let (negated, inner) = match inner {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, inner),
    };
    let mut found = false;
    let mut rest = inner;
    while let [first, tail @ ..] = rest {
        rest = match tail {
            [b'-', last, tail @ ..] => {
                found |= (*first..=*last).contains(&byte);
                tail
            }
            _ => {
                found |= *first == byte;
                tail
            }
        };
    }
    (found != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn matches_real_aliases() {
        let e1000 = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00";
        assert!(matches("pci:v00008086d0000100Esv*sd*bc*sc*i*", e1000));
        assert!(!matches("pci:v00008086d0000100Fsv*sd*bc*sc*i*", e1000));
        assert!(matches("pci:v*d*sv*sd*bc02sc00i*", e1000));
        assert!(matches(
            "usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*",
            "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00"
        ));
        assert!(matches("acpi*:IPI0001:*", "acpi:IPI0001:"));
        assert!(matches("scsi:t-0x00*", "scsi:t-0x00"));
        assert!(matches(
            "input:b*v*p*e*-e*1,*k*[0-9]*",
            "input:b0019v0000p0001e0000-e0,1,k74,ramlsfw"
        ));
    }

    #[test]
    fn brackets_and_ends() {
        assert!(matches("[!a-c]x", "dx") && !matches("[!a-c]x", "bx"));
        assert!(matches("a[", "a[") && !matches("a[", "ab"));
        assert!(matches("*", "") && matches("**a*", "ba") && !matches("", "a") && !matches("a", ""));
    }

    proptest! {
        #[test]
        fn never_panics_and_a_text_matches_itself(pattern in ".{0,40}", text in "[a-zA-Z0-9:]{0,40}") {
            let _ = matches(&pattern, &text);
            prop_assert!(matches(&text, &text));
            let starred = format!("*{text}*");
            prop_assert!(matches(&starred, &text));
        }
    }
}
