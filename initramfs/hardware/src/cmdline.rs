//! Kernel arguments, split as the kernel splits them (`next_arg` of lib/cmdline.c).

/// The arguments of `/proc/cmdline`. Its text holds the boot token: never print it.
#[derive(Clone, Default)]
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Splits at white space outside double quotes; quotes themselves are dropped, as the kernel drops them.
    pub fn parse(text: &str) -> Self {
        let mut arguments = Vec::new();
        let mut current = String::new();
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    if !current.is_empty() {
                        arguments.push(std::mem::take(&mut current));
                    }
                }
                c => current.push(c),
            }
        }
        if !current.is_empty() {
            arguments.push(current);
        }
        Self(arguments)
    }

    /// The value of the last `key=value`: the kernel's rule, so that an argument appended by hand wins.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='))
    }

    /// The values of all `key=value`, in order.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter_map(move |argument| argument.strip_prefix(key)?.strip_prefix('='))
    }

    /// All arguments.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_keep_a_value_together_and_the_last_value_wins() {
        let arguments = Arguments::parse("quiet  a=1 b=\"x y\" \"c=d e\" a=2\n");
        assert_eq!(
            arguments.iter().collect::<Vec<_>>(),
            ["quiet", "a=1", "b=x y", "c=d e", "a=2"]
        );
        assert_eq!(arguments.value("a"), Some("2"));
        assert_eq!(arguments.value("c"), Some("d e"));
        assert_eq!(arguments.value("quiet"), None);
        assert_eq!(arguments.value("b=x"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_split(text: String) {
            for argument in Arguments::parse(&text).iter() {
                prop_assert!(!argument.is_empty());
            }
        }
    }
}
