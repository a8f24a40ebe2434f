//! A catalogue on the loopback that keeps Consul's rules, and fails where it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What the catalogue knows, by node.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) nodes: BTreeMap<String, Value>,
    /// Requests it answered, without their bodies.
    pub(crate) asked: Vec<String>,
    /// The token that it wants.
    pub(crate) token: Option<&'static str>,
    /// Changes are answered with 503 once this many more were done.
    pub(crate) breaks_after: Option<usize>,
}

impl Memory {
    fn answer(&mut self, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        self.asked.push(format!("{method} {path}"));
        if self.token.is_some() && token != self.token {
            return (403, json!("Permission denied"));
        }
        if let Some(name) = path.strip_prefix("/v1/catalog/node/") {
            return (200, self.nodes.get(name).cloned().unwrap_or_default());
        }
        match &mut self.breaks_after {
            Some(0) => return (503, json!("no cluster leader")),
            Some(left) => *left -= 1,
            None => {}
        }
        let name = body["Node"].as_str().unwrap().to_owned();
        match path {
            "/v1/catalog/register" => self.register(name, body),
            "/v1/catalog/deregister" => {
                match body["ServiceID"].as_str() {
                    Some(id) => drop(
                        self.nodes.get_mut(&name).unwrap()["Services"]
                            .as_object_mut()
                            .unwrap()
                            .remove(id),
                    ),
                    None => drop(self.nodes.remove(&name)),
                }
                (200, json!(true))
            }
            other => panic!("{other}"),
        }
    }

    /// As Consul does: a name is reserved by its node's id, and an id under a new name renames the node.
    fn register(&mut self, name: String, body: &Value) -> (u16, Value) {
        if self
            .nodes
            .get(&name)
            .is_some_and(|node| node["Node"]["ID"] != body["ID"])
        {
            return (500, json!(format!("Node name {name} is reserved by another node")));
        }
        let old = self.nodes.iter().find(|(_, node)| node["Node"]["ID"] == body["ID"]);
        let old = old.map(|(name, _)| name.clone());
        let mut node = old
            .and_then(|old| self.nodes.remove(&old))
            .unwrap_or_else(|| json!({ "Services": {} }));
        node["Node"] = json!({
            "ID": body["ID"], "Node": name, "Address": body["Address"], "Meta": body["NodeMeta"],
        });
        let service = &body["Service"];
        node["Services"][service["ID"].as_str().unwrap()] = service.clone();
        self.nodes.insert(name, node);
        (200, json!(true))
    }
}

/// It runs until it is dropped.
pub(crate) struct Catalogue {
    pub(crate) url: String,
    pub(crate) memory: Arc<Mutex<Memory>>,
    task: AbortHandle,
}

impl Drop for Catalogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Catalogue {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let memory = Arc::<Mutex<Memory>>::default();
        let kept = memory.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, kept.clone()));
            }
        });
        let task = task.abort_handle();
        Self { url, memory, task }
    }

    /// Names of nodes, each with the ids of its services.
    pub(crate) fn has(&self) -> Vec<(String, Vec<String>)> {
        let memory = self.memory.lock().unwrap();
        let ids = |node: &Value| node["Services"].as_object().unwrap().keys().cloned().collect();
        memory
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), ids(node)))
            .collect()
    }
}

async fn serve(stream: TcpStream, memory: Arc<Mutex<Memory>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = head.to_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = vec![0; field("content-length:").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = memory
            .lock()
            .unwrap()
            .answer(method, path, field("x-consul-token:"), &body);
        let answer = answer.to_string();
        let text = format!(
            "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(text.as_bytes()).await.ok()?;
    }
}
