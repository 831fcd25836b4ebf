//! Configuration lists, called in the order and with the additions of libcni (`libcni/api.go`).

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::cni::save;
use crate::{Call, Cni, CniError, CniRan, Container};

/// A network configuration list.
#[derive(Debug, Clone)]
pub struct ConfList<'h> {
    cni: Cni<'h>,
    list: Value,
    capabilities: Map<String, Value>,
    args: Option<String>,
}

/// Which plugin of a list failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListError {
    /// The plugin's `type`.
    pub plugin: String,
    /// What it said.
    pub error: CniError,
}

impl<'h> ConfList<'h> {
    pub(crate) fn new(cni: Cni<'h>, mut list: Value) -> Self {
        let object = list.as_object_mut().expect("a list is an object");
        object.entry("cniVersion").or_insert_with(|| json!("1.0.0"));
        object.entry("name").or_insert_with(|| json!("n0"));
        Self { cni, list, capabilities: Map::new(), args: None }
    }

    /// What the runtime asks for, given as `runtimeConfig` to the plugins that declare the capability.
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    /// `CNI_ARGS` of all plugins.
    pub fn args(mut self, args: &str) -> Self {
        self.args = Some(args.to_owned());
        self
    }

    /// Adds the container: every plugin in order, each with the result of the one before. As with libcni, the caller deletes
    /// after a failure.
    pub fn add(&self, container: &Container<'_>, id: &str, ifname: &str) -> Result<Value, ListError> {
        let mut result = None;
        for plugin in self.plugins() {
            let ran = self.call(plugin, result.as_ref()).container(container).id(id).ifname(ifname).add();
            result = Some(outcome(plugin, ran)?);
        }
        let result = result.expect("a list has plugins");
        save(&self.cache(id, ifname), &result);
        Ok(result)
    }

    /// Checks the container: every plugin in order, each with the cached result.
    pub fn check(&self, container: &Container<'_>, id: &str, ifname: &str) -> Result<(), ListError> {
        let cached = self.cached(id, ifname);
        for plugin in self.plugins() {
            let ran = self.call(plugin, cached.as_ref()).container(container).id(id).ifname(ifname).check();
            outcome(plugin, ran)?;
        }
        Ok(())
    }

    /// Deletes the container: every plugin in reverse, each with the cached result. `None` for a namespace that is gone.
    pub fn del(&self, container: Option<&Container<'_>>, id: &str, ifname: &str) -> Result<(), ListError> {
        let cached = self.cached(id, ifname);
        for plugin in self.plugins().rev() {
            let call = self.call(plugin, cached.as_ref()).id(id).ifname(ifname);
            let call = container.into_iter().fold(call, Call::container);
            outcome(plugin, call.del())?;
        }
        if cached.is_some() {
            fs::remove_file(self.cache(id, ifname)).unwrap();
        }
        Ok(())
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.list["plugins"].as_array().expect("a list has plugins").iter()
    }

    fn call(&self, plugin: &Value, previous: Option<&Value>) -> Call<'h> {
        let mut conf = plugin.clone();
        for key in ["name", "cniVersion"] {
            conf[key] = self.list[key].clone();
        }
        let declared = |name: &String| plugin["capabilities"][name] == json!(true);
        let wanted: Map<String, Value> = self
            .capabilities
            .iter()
            .filter(|(name, _)| declared(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !wanted.is_empty() {
            conf["runtimeConfig"] = Value::Object(wanted);
        }
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        let call = self.cni.conf(conf);
        match &self.args {
            Some(args) => call.args(args),
            None => call,
        }
    }

    fn cache(&self, id: &str, ifname: &str) -> PathBuf {
        let network = self.list["name"].as_str().expect("a list has a name");
        self.cni.cache_dir().join(format!("{network}-{id}-{ifname}"))
    }

    fn cached(&self, id: &str, ifname: &str) -> Option<Value> {
        let text = fs::read_to_string(self.cache(id, ifname)).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }
}

fn outcome(plugin: &Value, ran: CniRan) -> Result<Value, ListError> {
    if ran.succeeded() {
        return Ok(ran.json);
    }
    Err(ListError { plugin: plugin["type"].as_str().unwrap_or("").to_owned(), error: ran.err() })
}
