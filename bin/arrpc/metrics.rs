//! Whether a server of the command counts what it does, and where it shows that.

use arrpc::Server;

#[derive(clap::Args)]
pub(crate) struct Metrics {
    /// Serve Prometheus metrics at /metrics, charts of them at /, and for probes /healthz and
    /// /readyz [default: off]
    #[arg(long, help_heading = "Metrics")]
    metrics: bool,

    /// Their port, 0 takes a free one; switches them on [default: 9095]
    #[arg(long, value_name = "PORT", help_heading = "Metrics")]
    metrics_port: Option<u16>,

    /// The interface they listen on; switches them on [default: 0.0.0.0, every IPv4 interface]
    #[arg(long, value_name = "HOST", help_heading = "Metrics")]
    metrics_host: Option<String>,
}

impl Metrics {
    pub(crate) fn are_on(&self) -> bool {
        self.metrics || self.metrics_port.is_some() || self.metrics_host.is_some()
    }

    /// Gives a server its metrics, if they are wanted.
    pub(crate) fn of(&self, mut server: Server) -> Server {
        if self.metrics {
            server = server.metrics();
        }
        if let Some(port) = self.metrics_port {
            server = server.metrics_port(port);
        }
        if let Some(host) = &self.metrics_host {
            server = server.metrics_host(host);
        }
        server
    }
}
