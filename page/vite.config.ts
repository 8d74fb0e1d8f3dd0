import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defaultClientConditions, defineConfig } from "vite";

// Only pages that say so get the memory that several threads share.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Of a host that compresses files, the browser learns only their compressed size. */
function bytes(file: string): number {
  return statSync(fileURLToPath(import.meta.resolve(`onnxruntime-web/${file}`))).size;
}

export default defineConfig({
  base: "./", // The page works in any folder of a site.
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: false },
  worker: { format: "es" },
  // The runtime's own files stay files, of which a browser loads only those that it uses.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  define: {
    __CPU_RUNTIME_BYTES__: bytes("ort-wasm-simd-threaded.wasm"),
    __GPU_RUNTIME_BYTES__: bytes("ort-wasm-simd-threaded.jspi.wasm"),
  },
  server: { headers },
  preview: { headers },
});
