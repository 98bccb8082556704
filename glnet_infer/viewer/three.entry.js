// What the viewer takes from three.js. three.min.js is made from this file, once for each version of three.js:
//
//     npm install three@0.187.0 esbuild@0.28.2
//     cp node_modules/three/LICENSE three.LICENSE
//     npx esbuild three.entry.js --bundle --minify --format=iife --global-name=THREE --legal-comments=none \
//         --banner:js="/* three.js 0.187.0
//     $(cat three.LICENSE) */" --outfile=three.min.js
//
// The licence stands at its head, so every page carries it.
export {
  AnimationMixer, DirectionalLight, GridHelper, Group, HemisphereLight, PerspectiveCamera, Scene, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
