//! The agent of a node: looks at the machine, reports to the appliance, obeys. See the library's description.

fn main() {
    rackbar_agent::run()
}
