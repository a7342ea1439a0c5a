//! The stubs of tonic's service, described here rather than in a .proto file, which takes protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let greet = Method::builder()
        .name("greet")
        .route_name("Greet")
        .input_type("crate::contestants::tonic::Request")
        .output_type("crate::contestants::tonic::Reply")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let greeter = Service::builder().name("Greeter").package("compare").method(greet).build();
    Builder::new().compile(&[greeter]);
}
