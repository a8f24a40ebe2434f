//! The file that `talosctl gen secrets` writes: mappings in mappings of plain words, which is all of YAML that is read here.

use std::collections::BTreeMap;

use rackbar_model::SecretText;

use super::{TalosAuthority, TalosCluster};

/// A file of secrets has some 10 KiB.
const MOST_BYTES: usize = 256 << 10;

/// `certs.os.crt` is the deepest that there is.
const DEEPEST: usize = 3;

/// Text that is no file of secrets. Says none of it again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the secrets of the cluster cannot be read: {0}; give the file that `talosctl gen secrets` wrote")]
pub struct BadTalosSecrets(String);

/// Reads the secrets of a cluster, without its name and endpoint, which are not among them.
///
/// # Errors
/// When the text is no such file, is longer than 256 KiB, or lacks one of the secrets; says which line or which secret.
pub fn talos_secrets(text: &str) -> Result<TalosCluster, BadTalosSecrets> {
    let mut all = Secrets(words(text)?);
    let cluster = TalosCluster {
        name: String::new(),
        endpoint: String::new(),
        id: all.secret("cluster.id")?,
        secret: all.secret("cluster.secret")?,
        machine_token: all.secret("trustdinfo.token")?,
        bootstrap_token: all.secret("secrets.bootstraptoken")?,
        secretbox: all.secret("secrets.secretboxencryptionsecret")?,
        os: all.authority("certs.os")?,
        kubernetes: all.authority("certs.k8s")?,
        aggregator: all.authority("certs.k8saggregator")?,
        etcd: all.authority("certs.etcd")?,
        service_account: all.secret("certs.k8sserviceaccount.key")?,
    };
    Ok(cluster)
}

/// Words by their path, such as `certs.os.crt`.
struct Secrets(BTreeMap<String, String>);

impl Secrets {
    fn take(&mut self, path: &str) -> Result<String, BadTalosSecrets> {
        let found = self.0.remove(path).filter(|word| !word.is_empty());
        found.ok_or_else(|| BadTalosSecrets(format!("it has no {path}")))
    }

    fn secret(&mut self, path: &str) -> Result<SecretText, BadTalosSecrets> {
        self.take(path).map(SecretText)
    }

    fn authority(&mut self, path: &str) -> Result<TalosAuthority, BadTalosSecrets> {
        Ok(TalosAuthority {
            certificate: self.take(&format!("{path}.crt"))?,
            key: self.secret(&format!("{path}.key"))?,
        })
    }
}

/// All words of the file.
fn words(text: &str) -> Result<BTreeMap<String, String>, BadTalosSecrets> {
    if text.len() > MOST_BYTES {
        return Err(BadTalosSecrets("it is longer than 256 KiB".to_owned()));
    }
    let mut all = BTreeMap::new();
    // The mappings that a line stands in, each with how far its own key is indented.
    let mut inside: Vec<(usize, &str)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let bad = |what: &str| BadTalosSecrets(format!("line {}: {what}", index.saturating_add(1)));
        let line = line.trim_end();
        let rest = line.trim_start_matches(' ');
        if rest.is_empty() || rest.starts_with('#') || line == "---" {
            continue;
        }
        let depth = line.len().saturating_sub(rest.len());
        inside.retain(|(outer, _)| *outer < depth);
        let (key, word) = rest.split_once(':').ok_or_else(|| bad("it is no `key: word`"))?;
        let plain = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain {
            return Err(bad("its key has other characters than letters and digits"));
        }
        if inside.len() >= DEEPEST {
            return Err(bad("it stands deeper than such a file goes"));
        }
        let word = unquoted(word.trim()).ok_or_else(|| bad("its word has characters that no secret has"))?;
        let path: Vec<&str> = inside.iter().map(|(_, key)| *key).chain([key]).collect();
        if all.insert(path.join("."), word.to_owned()).is_some() {
            return Err(bad("it says again what a line before said"));
        }
        if word.is_empty() {
            inside.push((depth, key));
        }
    }
    Ok(all)
}

/// A word without its quotes: base64, or a token of letters, digits and dots.
fn unquoted(word: &str) -> Option<&str> {
    let bare = |quote: char| word.strip_prefix(quote)?.strip_suffix(quote);
    let word = bare('"').or_else(|| bare('\'')).unwrap_or(word);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=._-".contains(&b);
    word.bytes().all(plain).then_some(word)
}
