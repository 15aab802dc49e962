//! Three sites as processes over two test clouds: made by the commands of an operator, one file system for clients.

use anyhow::Result;
use std::time::Duration;
use tests::{
    cloud::CloudProcess,
    process::temp_dir,
    sites::{Site, cloud_flag, until_whole},
};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_at_one_site_is_read_at_all_and_lies_in_both_clouds() -> Result<()> {
    let folder = temp_dir("sites")?;
    let folder = folder.path();
    let clouds =
        [CloudProcess::start("alpha", folder, "files").await?, CloudProcess::start("beta", folder, "files").await?];
    let flags = [cloud_flag(&clouds[0], "alpha", folder)?, cloud_flag(&clouds[1], "beta", folder)?];
    let mut sites = vec![Site::first(folder, "ams", [&flags[0], &flags[1]], &[]).await?];
    sites[0].start().await?;
    for name in ["nyc", "sgp"] {
        let mut site = Site::joining(folder, name, &sites[0], &[]).await?;
        site.start().await?;
        sites.push(site);
    }
    until_whole(&sites, SOON).await?;

    let data: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let ams = sites[0].mount().await?;
    ams.make_dirs("a/b").await?;
    ams.put("a/b/file", &data).await?;
    ams.put("a/empty", b"").await?;
    for site in &sites {
        let nfs = site.mount().await?;
        assert_eq!(nfs.get("a/b/file").await?, &data[..], "at {}", site.name());
        assert_eq!(nfs.tree("a/b").await?.keys().collect::<Vec<_>>(), ["file"]);
        assert_eq!(nfs.get("a/empty").await?, b""[..]);
        nfs.put(&format!("a/from-{}", site.name()), site.name().as_bytes()).await?;
    }
    for site in &sites {
        assert_eq!(ams.get(&format!("a/from-{}", site.name())).await?, site.name().as_bytes());
        site.until("nothing is unprotected", SOON, |status| status.staging.segments == 0).await?;
    }
    let first = clouds[0].remote().objects("files", "segments/").await?;
    let second = clouds[1].remote().objects("files", "segments/").await?;
    assert!(!first.is_empty());
    assert_eq!(first, second);
    for site in &mut sites {
        assert!(site.stop().await?.success());
    }
    Ok(())
}
