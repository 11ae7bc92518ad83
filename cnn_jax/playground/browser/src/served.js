// The panel of a page that a cnn_jax server stands behind.
export function mountServed(container) {
  container.replaceChildren();
}
