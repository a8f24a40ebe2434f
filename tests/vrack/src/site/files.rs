//! Files a simulated server offers: from memory or from a folder.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::switch::locked;

/// Makes a document from the query of a request; `None` is answered as not found.
type Maker = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// Files by name. Clones share what is in memory.
#[derive(Clone, Default)]
pub struct Files {
    memory: Arc<Mutex<HashMap<String, Arc<[u8]>>>>,
    made: Arc<Mutex<HashMap<String, Maker>>>,
    folder: Option<PathBuf>,
}

impl Files {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything below a folder.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(path.into()),
            ..Self::default()
        }
    }

    /// Adds or replaces a file in memory; its name has no leading slash.
    pub fn put(&self, name: impl Into<String>, content: impl Into<Arc<[u8]>>) {
        locked(&self.memory).insert(name.into(), content.into());
    }

    /// Adds or replaces a document that is made anew for each web request, from its query (what follows the `?`).
    pub fn make(&self, name: impl Into<String>, maker: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) {
        locked(&self.made).insert(name.into(), Arc::new(maker));
    }

    /// The content for a web request, which may have a query.
    pub(crate) fn answer(&self, path: &str) -> Option<Arc<[u8]>> {
        let (name, query) = path.split_once('?').unwrap_or((path, ""));
        let maker = locked(&self.made).get(name.trim_start_matches('/')).cloned();
        match maker {
            Some(maker) => maker(query).map(Arc::from),
            None => self.get(name),
        }
    }

    /// The content of a file; memory goes before the folder, and nothing outside the folder is ever read.
    pub fn get(&self, name: &str) -> Option<Arc<[u8]>> {
        let name = name.trim_start_matches('/');
        if let Some(content) = locked(&self.memory).get(name) {
            return Some(Arc::clone(content));
        }
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let path = self.folder.as_ref().filter(|_| inside)?.join(name);
        std::fs::read(path).ok().map(Arc::from)
    }
}
