//! The two labels that name the process: where arrpc looks for them, and nothing else.

use std::fs;

/// The content of `/etc/hostname`, else what the operating system calls this machine.
///
/// The file comes first because arrpc reads nothing else, and in a container the two may differ.
pub(super) fn hostname() -> String {
    trimmed("/etc/hostname")
        .filter(|name| !name.is_empty())
        .or_else(|| Some(hostname::get().ok()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

/// The namespace Kubernetes mounts into every pod with a service account, else the empty string.
pub(super) fn k8s_namespace() -> String {
    trimmed("/var/run/secrets/kubernetes.io/serviceaccount/namespace").unwrap_or_default()
}

fn trimmed(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hostname_is_neither_empty_nor_padded() {
        let name = hostname();
        assert!(!name.is_empty());
        assert_eq!(name, name.trim());
    }

    #[test]
    fn a_missing_file_is_no_value() {
        assert_eq!(trimmed("/nonexistent/namespace"), None);
    }
}
