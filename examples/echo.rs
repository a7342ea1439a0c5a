//! echo
fn main() -> Result<(), arrpc::Error> {
    arrpc::Server::new("127.0.0.1", 8099, |m| m).threads(1).start()
}
