// Copies the built page into the Python package, where `stn-icnn demo` serves it from.
import { cpSync, rmSync } from "node:fs";

const target = new URL("../jax_stn_icnn/cli/page_files/", import.meta.url);
rmSync(target, { recursive: true, force: true });
cpSync(new URL("dist/", import.meta.url), target, { recursive: true });
