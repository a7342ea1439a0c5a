//! The smallest server: answers each message with itself, until it is stopped.
//!
//! ```text
//! listening on 127.0.0.1:8080
//! ```

fn main() -> Result<(), arrpc::Error> {
    arrpc::Server::new("127.0.0.1", 8080, |message| message)
        .after_start(|address| println!("listening on {address}"))
        .start()
}
