import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte()],
  // Without this Svelte's server build is taken, which mounts nothing.
  resolve: { conditions: ['browser'] },
  test: { include: ['tests/**/*.test.ts'], restoreMocks: true },
});
