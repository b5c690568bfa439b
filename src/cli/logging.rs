//! Logs for `-v`, on standard error. Libraries that could log tokens or bodies stay silent.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. Azure's crates are off at every level: their debug output is not under our
/// control, and what matters of a request is logged by our own pipeline.
pub(super) fn start(verbose: u8, coloured: bool) {
    let levels = match verbose {
        // What kube says of an answer that was handled is no news.
        0 => "warn,kube_client=off",
        1 => "warn,kube_client=off,widentity=info",
        2 => "warn,kube_client=off,widentity=debug",
        _ => "warn,widentity=trace,kube_client=debug",
    };
    let silent = "azure_core=off,azure_identity=off,typespec=off,typespec_client_core=off,\
                  reqwest=off,hyper=off,h2=off,rustls=off,tower=off";
    let filter = EnvFilter::new(format!("{levels},{silent}"));
    let subscriber =
        fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(coloured).compact();
    // A second start, as in tests, keeps the first.
    drop(subscriber.try_init());
}
