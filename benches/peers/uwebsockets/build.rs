//! Links what the binding leaves out.

fn main() {
    // The binding's objects are GCC's link-time bytecode, which rustc's own linker cannot read.
    println!("cargo:rustc-link-arg-bins=-fuse-ld=bfd");
    for library in ["stdc++", "uv", "z", "ssl", "crypto"] {
        println!("cargo:rustc-link-arg-bins=-l{library}");
    }
}
