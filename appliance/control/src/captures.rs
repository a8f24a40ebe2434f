//! What is asked of packet captures.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which of the newest boot packets.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct RecentCapture {
    /// Only of this interface of the appliance.
    pub interface: Option<String>,
    /// Only of this machine: name, id or MAC address; its BMC's are among them.
    pub node: Option<String>,
}

/// A capture of what comes and goes from now on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureOrder {
    /// Only on this interface of the appliance; on every one that the rack is served on when left out.
    pub interface: Option<String>,
    /// Only of this machine: name, id or MAC address; its BMC's are among them.
    pub node: Option<String>,
    /// The headers of everything else too, not of boot packets and DNS alone.
    pub all: bool,
    /// For so many seconds, 1 to 3600; 60 when left out.
    pub seconds: Option<u32>,
    /// The file grows to so many bytes at most, 4096 to 268435456; 67108864 when left out.
    pub max_bytes: Option<u64>,
}
