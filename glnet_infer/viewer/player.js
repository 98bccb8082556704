// Plays a motion over its video: the skinned meshes are drawn by three.js with the camera that recovered them.
// After #, separated by &: t=SECONDS, opacity=0..1, orbit, bare (the stage alone).
"use strict";
(() => {
  const el = (id) => document.getElementById(id);
  const data = JSON.parse(el("data").textContent);
  const bytes = (id) => Uint8Array.from(atob(el(id).textContent), (c) => c.charCodeAt(0));
  const wanted = new URLSearchParams(location.hash.slice(1));
  const [width, height] = data.image_size;
  const times = data.times;
  const last = times.length - 1;
  const NEAR = 0.05, FAR = 500;

  el("stage").style.aspectRatio = `${width} / ${height}`;
  if (wanted.has("bare")) { document.body.className = "bare"; el("stage").style.width = `${width}px`; }
  el("about").textContent = data.about;
  el("scrub").max = Math.max(last, 0);

  // The scene, in glTF's axes: y up, z towards the viewer.
  const renderer = new THREE.WebGLRenderer({ canvas: el("meshes"), antialias: true, alpha: true });
  const scale = Math.min(1, 1920 / Math.max(width, height));
  renderer.setSize(Math.round(width * scale), Math.round(height * scale), false);
  const scene = new THREE.Scene();
  scene.add(new THREE.HemisphereLight(0xffffff, 0x777777, 2.2));
  const light = new THREE.DirectionalLight(0xffffff, 2);
  light.position.set(1, 2, 3);
  scene.add(light);

  // The pinhole of the intrinsics. Pixels have y down, the scene has it up and looks along -z.
  const { fx, fy, cx, cy } = data.intrinsics;
  const camera = new THREE.PerspectiveCamera();
  camera.projectionMatrix.set(
    2 * fx / width, 0, 1 - 2 * cx / width, 0,
    0, 2 * fy / height, 2 * cy / height - 1, 0,
    0, 0, -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR),
    0, 0, -1, 0);
  camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();

  // The other view: around the persons, over a grid at their feet.
  const around = new THREE.PerspectiveCamera(45, width / height, NEAR, FAR);
  const middle = new THREE.Vector3(...data.middle);
  const controls = new THREE.OrbitControls(around, el("meshes"));
  around.position.copy(middle).add(new THREE.Vector3(2.2, 1.2, 3.2));
  controls.target.copy(middle);
  controls.update();
  const grid = new THREE.Group();
  grid.position.set(middle.x, data.floor, middle.z);
  grid.visible = false;
  for (let x = -10; x < 10; x += 2) for (let z = -10; z < 10; z += 2) {
    // Tiles, not one: some drivers drop lines that end behind the camera.
    const tile = new THREE.GridHelper(2, 2, 0x5a626d, 0x454b55);
    tile.position.set(x + 1, 0, z + 1);
    grid.add(tile);
  }
  scene.add(grid);

  // Time: the video's own where there is one, else a clock.
  const video = el("video");
  let now = times.length ? times[0] : 0, playing = false, orbiting = false, before = 0;
  const end = times.length ? times[last] : 0;

  if (video) {
    video.src = URL.createObjectURL(new Blob([bytes("video-bytes")], { type: data.video_type }));
    video.muted = true;
    const shown = (_, frame) => { now = frame.mediaTime + data.video_start; video.requestVideoFrameCallback(shown); };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
    else video.addEventListener("timeupdate", () => { now = video.currentTime + data.video_start; });
    video.addEventListener("play", () => setPlaying(true));
    video.addEventListener("pause", () => setPlaying(false));
    video.addEventListener("error", () => { el("error").textContent = "This browser does not play the video's format."; });
  }

  function setPlaying(value) {
    playing = value;
    el("play").textContent = playing ? "Pause" : "Play";
  }

  function toggle() {
    if (video) { if (video.paused) video.play(); else video.pause(); return; }
    if (!playing && now >= end) now = times[0];
    setPlaying(!playing);
  }

  // A frame's time is where it begins: a little later is surely inside it.
  const inside = (index) => times[index] + 0.3 * ((times[index + 1] ?? times[index] + 0.03) - times[index]);

  function seek(index) {
    if (index < 0 || index > last) return;
    if (video) video.currentTime = Math.max(0, inside(index) - data.video_start);
    else now = times[index];
  }

  function frameAt(time) {
    let low = 0, high = last;
    while (low < high) {
      const half = (low + high + 1) >> 1;
      if (times[half] <= time + 1e-4) low = half; else high = half - 1;
    }
    return low;
  }

  function setOrbit(value) {
    orbiting = value;
    grid.visible = value;
    controls.enabled = value;
    el("orbit").setAttribute("aria-pressed", value);
    for (const behind of el("stage").querySelectorAll("video, img")) behind.style.visibility = value ? "hidden" : "visible";
    el("meshes").style.opacity = value ? 1 : el("opacity").value;
  }

  // The list of tracks.
  const tracks = data.tracks.map((track) => {
    const label = document.createElement("label");
    label.className = "track";
    label.innerHTML = '<span class="name"><input type="checkbox" checked><span class="swatch"></span><span></span>' +
      '<span class="now"></span></span><canvas width="480" height="72"></canvas>';
    const [box, swatch, name, value] = label.querySelector(".name").children;
    swatch.style.background = track.color;
    name.textContent = `track ${track.track}: ${track.times.length} frames`;
    drawConfidence(label.querySelector("canvas"), track);
    el("tracks").append(label);
    return { ...track, box, value, meshes: [] };
  });

  function drawConfidence(canvas, track) {
    const context = canvas.getContext("2d"), span = Math.max(end - times[0], 1e-6);
    const step = Math.max(1, canvas.width / Math.max(times.length, 1));
    track.times.forEach((time, row) => {
      context.fillStyle = ["#5fa36a", "#d0604f", "#70767f"][track.status[row]];
      const size = Math.max(track.confidence[row], track.status[row] === 2 ? 0.15 : 0.02) * canvas.height;
      context.fillRect((time - times[0]) / span * (canvas.width - step), canvas.height - size, step, size);
    });
  }

  const isThere = (track, time) => track.spans.some(([start, stop]) => start - 1e-4 <= time && time <= stop + 1e-4);

  function show(track, time) {
    const there = isThere(track, time);
    for (const mesh of track.meshes) mesh.visible = there && track.box.checked;
    let row = -1;
    if (there) while (row + 1 < track.times.length && track.times[row + 1] <= time + 1e-4) row += 1;
    const said = row < 0 ? "absent" : `${Math.round(100 * track.confidence[row])} %`;
    if (track.value.textContent !== said) track.value.textContent = said;
  }

  el("play").onclick = toggle;
  el("orbit").onclick = () => setOrbit(!orbiting);
  el("scrub").oninput = (event) => seek(+event.target.value);
  el("opacity").oninput = () => setOrbit(orbiting);
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" && event.target.type === "range") return;
    if (event.key === " ") { event.preventDefault(); toggle(); }
    if (event.key === "o") setOrbit(!orbiting);
    if (event.key === "ArrowRight") seek(frameAt(now) + 1);
    if (event.key === "ArrowLeft") seek(frameAt(now) - 1);
  });
  if (wanted.has("opacity")) el("opacity").value = wanted.get("opacity");
  setOrbit(wanted.has("orbit"));

  new THREE.GLTFLoader().parse(bytes("glb").buffer, "", (gltf) => {
    scene.add(gltf.scene);
    const mixer = new THREE.AnimationMixer(gltf.scene);
    for (const clip of gltf.animations) mixer.clipAction(clip).play();
    // At its end, an animation would begin again.
    const played = Math.max(0, ...gltf.animations.map((clip) => clip.duration)) - 1e-5;
    gltf.scene.traverse((object) => {
      if (!object.isMesh) return;
      object.frustumCulled = false;  // its bounds are those of the rest pose
      const track = tracks.find((each) => object.name === `track_${each.track}_body`);
      if (track) track.meshes.push(object);
    });
    if (wanted.has("t")) seek(frameAt(+wanted.get("t")));
    else if (video) seek(0);
    (function draw(clock) {
      if (playing && !video) {
        now += Math.max(0, clock - before) / 1000;
        if (now >= end) { now = end; setPlaying(false); }
      }
      before = clock;
      mixer.setTime(Math.max(0, Math.min(now - data.glb_start, played)));
      for (const track of tracks) show(track, now);
      if (orbiting) controls.update();
      renderer.render(scene, orbiting ? around : camera);
      const frame = frameAt(now);
      if (document.activeElement !== el("scrub") || playing) el("scrub").value = frame;
      el("clock").textContent = `${now.toFixed(2)} s, frame ${data.numbers[frame] ?? 0}`;
      requestAnimationFrame(draw);
    })(performance.now());
  }, (error) => { el("error").textContent = `The meshes were not read: ${error.message}`; });
})();
